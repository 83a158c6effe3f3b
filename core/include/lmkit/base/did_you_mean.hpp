// SPDX-License-Identifier: Apache-2.0
//
// Did you mean: the known name nearest to a mistyped one, for commands, flags, plugins, options and models.
//
//     did_you_mean("kv-itn4", names)        "kv-int4"
//     did_you_mean_hint("kv-itn4", names)   "did you mean 'kv-int4'?", or "" when nothing is near
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace lmkit {

inline constexpr std::size_t longest_compared_name = 64;  // longer ones are not typing mistakes, and cost is quadratic

// Damerau-Levenshtein distance without repeated edits of one place: insertions, deletions, replacements and swaps of
// neighbours that turn a into b, ASCII case ignored. Both at most longest_compared_name bytes.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  std::array<std::array<std::size_t, longest_compared_name + 1>, 3> rows{};  // of a's prefixes i - 2, i - 1 and i
  for (std::size_t j = 0; j <= b.size(); ++j) rows[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    auto& row = rows[i % 3];
    const auto& above = rows[(i + 2) % 3];
    const auto& two_above = rows[(i + 1) % 3];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = lower(a[i - 1]) == lower(b[j - 1]);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1]))
        row[j] = std::min(row[j], two_above[j - 2] + 1);
    }
  }
  return rows[a.size() % 3][b.size()];
}

// The nearest of `names` (a range of strings), or "" when none is within a third of the word's length. A word of three
// letters or more also finds the name it is a part of: "int4" finds "kv-int4".
template <class Names>
std::string did_you_mean(std::string_view word, const Names& names) {
  if (word.empty() || word.size() > longest_compared_name) return {};
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const auto& candidate : names) {
    const std::string_view name = candidate;
    if (name.empty() || name.size() > longest_compared_name) continue;
    const bool part = word.size() >= 3 && name.find(word) != name.npos;
    const std::size_t distance = part ? 1 : edit_distance(word, name);
    if (distance < best_distance && distance < std::max(word.size(), name.size())) {
      best = name;
      best_distance = distance;
    }
  }
  return std::string(best);
}

template <class Names>
std::string did_you_mean_hint(std::string_view word, const Names& names) {
  const std::string name = did_you_mean(word, names);
  return name.empty() ? name : "did you mean '" + name + "'?";
}

}  // namespace lmkit
