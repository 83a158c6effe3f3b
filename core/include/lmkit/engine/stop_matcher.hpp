// SPDX-License-Identifier: Apache-2.0
//
// StopMatcher: lets text through until a stop string appears. Text that may be a stop string's beginning is held back
// until the next token decides. Stop strings and pieces are valid UTF-8, so what passes is too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmkit {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // The text that may be shown now; nothing more after a match.
  std::string push(std::string_view piece) {
    if (matched_) return {};
    held_ += piece;
    std::size_t first = std::string::npos;
    for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
    matched_ = first != std::string::npos;
    const std::size_t shown = matched_ ? first : held_.size() - longest_beginning();
    std::string text = held_.substr(0, shown);
    held_.erase(0, matched_ ? held_.size() : shown);
    return text;
  }

  // What was held back, when the answer ends without a match.
  std::string flush() { return std::exchange(held_, {}); }

  bool matched() const noexcept { return matched_; }

 private:
  // Bytes of the longest end of held_ that begins a stop string.
  std::size_t longest_beginning() const noexcept {
    std::size_t longest = 0;
    for (const std::string_view stop : stops_) {
      for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
        if (held_.ends_with(stop.substr(0, n))) longest = n;
      }
    }
    return longest;
  }

  std::vector<std::string> stops_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace lmkit
