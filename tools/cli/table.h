// A table for people: aligned columns, a header line, long texts cut. Rows may be rendered in
// several goes, so that a long listing need not be kept in memory; columns never become narrower
// then.

#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace holdfast::cli {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kLeft;
  std::size_t width_min = 0;  // characters
};

class Table {
 public:
  // Lines are at most `width` characters where cutting the last column achieves that; it keeps 16.
  Table(std::vector<Column> columns, std::size_t width);

  // One cell for each column. Control characters are escaped.
  void add(std::vector<std::string> cells);
  std::size_t pending_rows() const { return rows_.size(); }
  // The rows added since the last call, before the first ones the header, each line ended by '\n'.
  // Empty if there are none.
  std::string render();

 private:
  void append_line(const std::vector<std::string>& cells, std::string& out) const;

  std::vector<Column> columns_;
  std::vector<std::size_t> widths_;
  std::size_t width_;
  std::vector<std::vector<std::string>> rows_;
  bool header_is_out_ = false;
};

// A noun's properties: name and value.
using Fields = std::vector<std::pair<std::string, std::string>>;
// One a line, values aligned: "NAME   value".
std::string render_fields(const Fields& fields);

}  // namespace holdfast::cli
