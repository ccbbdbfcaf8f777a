#include "cli/table.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "cli/cell.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kLastColumnMin = 16;

}  // namespace

Table::Table(std::vector<Column> columns, std::size_t width)
    : columns_(std::move(columns)), width_(width) {
  for (const Column& column : columns_) {
    widths_.push_back(std::max(column.width_min, character_count(column.title)));
  }
}

void Table::add(std::vector<std::string> cells) {
  CHECK(cells.size() == columns_.size(), "{} cells, {} columns", cells.size(), columns_.size());
  for (std::size_t i = 0; i < cells.size(); ++i) {
    cells[i] = printable(cells[i]);
    widths_[i] = std::max(widths_[i], character_count(cells[i]));
  }
  rows_.push_back(std::move(cells));
}

std::string Table::render() {
  std::string out;
  if (rows_.empty()) return out;
  if (!header_is_out_) {
    std::vector<std::string> titles;
    for (const Column& column : columns_) titles.push_back(column.title);
    append_line(titles, out);
    header_is_out_ = true;
  }
  for (const std::vector<std::string>& row : rows_) append_line(row, out);
  rows_.clear();
  return out;
}

void Table::append_line(const std::vector<std::string>& cells, std::string& out) const {
  std::size_t used = 0;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const bool is_last = i + 1 == cells.size();
    const std::size_t left = width_ > used + kLastColumnMin ? width_ - used : kLastColumnMin;
    const std::string cell = is_last ? cut(cells[i], left) : cells[i];
    const std::size_t characters = character_count(cell);
    const std::size_t padding = widths_[i] > characters ? widths_[i] - characters : 0;
    if (columns_[i].align == Align::kRight) out.append(padding, ' ');
    out += cell;
    if (columns_[i].align == Align::kLeft && !is_last) out.append(padding, ' ');
    if (!is_last) out.append(kGap, ' ');
    used += std::max(widths_[i], characters) + kGap;
  }
  out += '\n';
}

std::string render_fields(const Fields& fields) {
  std::size_t width = 0;
  for (const auto& [name, value] : fields) width = std::max(width, character_count(name));
  std::string out;
  for (const auto& [name, value] : fields) {
    out += name;
    out.append(width - character_count(name) + kGap, ' ');
    out += printable(value);
    out += '\n';
  }
  return out;
}

}  // namespace holdfast::cli
