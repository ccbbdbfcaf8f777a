// Reading what is published, writing what is printed.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cli/input.h"
#include "cli/output.h"
#include "cli/whole_file.h"

namespace holdfast::cli {
namespace {

// An empty directory that is removed at the end.
class Directory {
 public:
  Directory() {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-cli-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& content) const {
    std::ofstream(file(name), std::ios::binary) << content;
    return file(name);
  }
  std::string read(const std::string& name) const {
    std::ostringstream content;
    content << std::ifstream(file(name), std::ios::binary).rdbuf();
    return content.str();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

 private:
  std::filesystem::path path_;
};

std::vector<std::string> lines_of(const Directory& directory, const std::string& content) {
  Result<Input> input = Input::open(directory.write("lines", content));
  REQUIRE(input.ok());
  std::vector<std::string> lines;
  Input::Line line;
  for (;;) {
    const Result<bool> more = input->read_line(line, kMessageBodyBytesMax);
    REQUIRE(more.ok());
    if (!*more) return lines;
    lines.push_back(line.text);
    CHECK(line.number == lines.size());
  }
}

TEST_CASE("a text is read line by line, whatever its end") {
  const Directory directory;
  using Lines = std::vector<std::string>;
  CHECK(lines_of(directory, "") == Lines{});
  CHECK(lines_of(directory, "a") == Lines{"a"});
  CHECK(lines_of(directory, "a\n") == Lines{"a"});
  CHECK(lines_of(directory, "\n\nb\n") == Lines{"", "", "b"});
  CHECK(lines_of(directory, "a\r\n") == Lines{"a\r"});
}

TEST_CASE("lines longer than the piece that is read at once stay whole") {
  const Directory directory;
  const std::string big(600'000, 'x');
  const std::vector<std::string> lines = lines_of(directory, big + "\nsmall\n" + big);
  REQUIRE(lines.size() == 3);
  CHECK(lines[0] == big);
  CHECK(lines[1] == "small");
  CHECK(lines[2] == big);
}

TEST_CASE("a line that no queue takes is passed over, the next one is read") {
  const Directory directory;
  const std::string content = std::string(kMessageBodyBytesMax, 'a') + "\n" +
                              std::string(kMessageBodyBytesMax + 1, 'b') + "\nc\n";
  Result<Input> input = Input::open(directory.write("lines", content));
  REQUIRE(input.ok());
  Input::Line line;
  REQUIRE(*input->read_line(line, kMessageBodyBytesMax));
  CHECK(!line.is_too_long);
  CHECK(line.text.size() == kMessageBodyBytesMax);
  REQUIRE(*input->read_line(line, kMessageBodyBytesMax));
  CHECK(line.is_too_long);
  CHECK(line.number == 2);
  REQUIRE(*input->read_line(line, kMessageBodyBytesMax));
  CHECK(!line.is_too_long);
  CHECK(line.text == "c");
  CHECK(!*input->read_line(line, kMessageBodyBytesMax));
}

TEST_CASE("a body is read whole up to the largest that any queue takes") {
  const Directory directory;
  const std::string body(kMessageBodyBytesMax, 'a');
  CHECK(*Input::open(directory.write("body", body))->read_body() == body);
  const Result<std::string> larger = Input::open(directory.write("body", body + "a"))->read_body();
  REQUIRE(!larger.ok());
  CHECK(larger.status().code() == ErrorCode::kMessageTooLarge);
}

TEST_CASE("an input that cannot be read is named") {
  const Directory directory;
  const Result<Input> missing = Input::open(directory.file("missing"));
  REQUIRE(!missing.ok());
  CHECK(missing.status().message().find("missing") != std::string::npos);
  Result<Input> folder = Input::open(directory.file(""));
  REQUIRE(folder.ok());
  CHECK(folder->read_body().status().code() == ErrorCode::kInvalidArgument);
}

TEST_CASE("a finished file replaces the old one and leaves nothing beside it") {
  const Directory directory;
  directory.write("export", "old");
  {
    Result<WholeFile> file = WholeFile::create(directory.file("export"));
    REQUIRE(file.ok());
    REQUIRE(file->write("new").ok());
    CHECK(directory.read("export") == "old");
    REQUIRE(file->finish().ok());
  }
  CHECK(directory.read("export") == "new");
  CHECK(directory.names() == std::vector<std::string>{"export"});
}

TEST_CASE("an unfinished file leaves the old one and nothing beside it") {
  const Directory directory;
  directory.write("export", "old");
  {
    Result<WholeFile> file = WholeFile::create(directory.file("export"));
    REQUIRE(file.ok());
    REQUIRE(file->write(std::string(1 << 20, 'x')).ok());
  }
  CHECK(directory.read("export") == "old");
  CHECK(directory.names() == std::vector<std::string>{"export"});
}

TEST_CASE("an export could be read by everybody, as its messages in the store cannot") {
  const Directory directory;
  const mode_t umask_before = ::umask(0);
  for (const auto& [mask, mode] :
       {std::pair{mode_t{0}, mode_t{0640}}, std::pair{mode_t{077}, mode_t{0600}}}) {
    ::umask(mask);
    Result<WholeFile> file = WholeFile::create(directory.file("export"));
    REQUIRE(file.ok());
    REQUIRE(file->finish().ok());
    struct stat info {};
    REQUIRE(::stat(directory.file("export").c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == mode);
  }
  ::umask(umask_before);
}

TEST_CASE("a link was replaced instead of the file that it leads to") {
  namespace fs = std::filesystem;
  const Directory directory;
  fs::create_directory(directory.file("there"));
  directory.write("there/export", "old");
  fs::create_symlink("there/export", directory.file("relative"));
  fs::create_symlink(directory.file("relative"), directory.file("to-a-link"));
  fs::create_symlink("there/absent", directory.file("dangling"));
  for (const auto& [link, target] :
       {std::pair{"relative", "there/export"}, std::pair{"to-a-link", "there/export"},
        std::pair{"dangling", "there/absent"}}) {
    const std::string path = directory.file(link);
    CAPTURE(path);
    Result<WholeFile> file = WholeFile::create(path);
    REQUIRE(file.ok());
    REQUIRE(file->write(std::string("new by ") + link).ok());
    REQUIRE(file->finish().ok());
    CHECK(directory.read(target) == std::string("new by ") + link);
    CHECK(fs::is_symlink(directory.file(link)));
    CHECK(!fs::is_symlink(directory.file(target)));
  }
  CHECK(directory.names().size() == 4);
  CHECK(std::distance(fs::directory_iterator(directory.file("there")), {}) == 2);
}

TEST_CASE("links that lead in a circle are refused") {
  const Directory directory;
  std::filesystem::create_symlink("b", directory.file("a"));
  std::filesystem::create_symlink("a", directory.file("b"));
  const Result<WholeFile> file = WholeFile::create(directory.file("a"));
  REQUIRE(!file.ok());
  CHECK(file.status().code() == ErrorCode::kInvalidArgument);
  CHECK(file.status().message().find("40 symbolic links") != std::string::npos);
}

TEST_CASE("a file in a directory that does not exist is refused by its name") {
  const Directory directory;
  const Result<WholeFile> file = WholeFile::create(directory.file("no/export"));
  REQUIRE(!file.ok());
  CHECK(file.status().message().find("no/export\" cannot be created") != std::string::npos);
}

TEST_CASE("a directory was found to be one only when the file was to take its place") {
  const Directory directory;
  std::filesystem::create_directory(directory.file("there"));
  const Result<WholeFile> file = WholeFile::create(directory.file("there"));
  REQUIRE(!file.ok());
  CHECK(file.status().code() == ErrorCode::kInvalidArgument);
  CHECK(file.status().message().find("there\" cannot be opened: Is a directory") !=
        std::string::npos);
}

// What `print` writes in this format.
std::string printed(OutputFormat format, void (*print)(Output&)) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  Output output(format, ends[1], 80);
  print(output);
  output.flush();
  ::close(ends[1]);
  std::string text(65'536, '\0');
  const ssize_t count = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  return text;
}

void two_objects(Output& output) {
  output.begin_list({{"N"}});
  output.object({{"n", 1}});
  output.object({{"n", 2}});
  output.end_list();
}

TEST_CASE("a list is an array in JSON and one object a line in JSON lines") {
  CHECK(printed(OutputFormat::kJsonl, two_objects) == "{\"n\":1}\n{\"n\":2}\n");
  CHECK(printed(OutputFormat::kJson, two_objects) == "[\n{\"n\":1},\n{\"n\":2}\n]\n");
}

TEST_CASE("an empty list is an empty array in JSON and nothing elsewhere") {
  const auto nothing = [](Output& output) {
    output.begin_list({{"N"}});
    output.end_list();
  };
  CHECK(printed(OutputFormat::kJson, nothing) == "[]\n");
  CHECK(printed(OutputFormat::kJsonl, nothing).empty());
  CHECK(printed(OutputFormat::kTable, nothing).empty());
}

TEST_CASE("a list cut short by an error is still well-formed") {
  const auto cut_short = [](Output& output) {
    output.begin_list({{"N"}});
    output.object({{"n", 1}});
    output.abandon_list();
  };
  CHECK(printed(OutputFormat::kJson, cut_short) == "[\n{\"n\":1}\n]\n");
  const auto failed_at_once = [](Output& output) {
    output.begin_list({{"N"}});
    output.abandon_list();
  };
  CHECK(printed(OutputFormat::kJson, failed_at_once).empty());
}

TEST_CASE("rows are written when the output is flushed") {
  const auto rows = [](Output& output) {
    output.begin_list({{"N"}});
    output.row({"1"});
    output.flush();
    output.row({"2"});
    output.end_list();
  };
  CHECK(printed(OutputFormat::kTable, rows) == "N\n1\n2\n");
}

TEST_CASE("a reader that went away is told from other failures") {
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  Output closed(OutputFormat::kJsonl, ends[1], 80);
  closed.single({{"n", 1}});
  CHECK(!closed.flush());
  CHECK(closed.pipe_is_closed());
  CHECK(closed.status().code() == ErrorCode::kStorageFailed);
  ::close(ends[1]);
  std::signal(SIGPIPE, before);

  const int full = ::open("/dev/full", O_WRONLY);
  REQUIRE(full >= 0);
  Output output(OutputFormat::kJsonl, full, 80);
  output.single({{"n", 1}});
  CHECK(!output.flush());
  CHECK(!output.pipe_is_closed());
  CHECK(output.status().message().find("No space left") != std::string::npos);
  ::close(full);
}

}  // namespace
}  // namespace holdfast::cli
