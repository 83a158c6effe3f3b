// SPDX-License-Identifier: Apache-2.0
//
// The strings of tests/oracle/text.py, made here again from the seed, the atoms and the blocks in a fixture.
#pragma once

#include <lmkit/text/tokenizer_data.hpp>
#include <lmkit/text/utf8.hpp>

#include <boost/json.hpp>
#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace lmkit_test {

inline boost::json::value read_json(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return boost::json::parse(std::string(std::istreambuf_iterator<char>(file), {}));
}

class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  std::uint64_t below(std::uint64_t n) {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (z ^ z >> 31) % n;
  }

 private:
  std::uint64_t state_;
};

inline char32_t scalar(std::uint64_t c) { return c >= 0xD800 && c < 0xE000 ? lmkit::replacement_character : static_cast<char32_t>(c); }

class Strings {
 public:
  explicit Strings(const boost::json::object& fixture) {
    for (const auto& atom : fixture.at("atoms").as_array()) atoms_.emplace_back(atom.as_string());
    for (const auto& block : fixture.at("blocks").as_array())
      blocks_.emplace_back(block.at(0).to_number<std::uint64_t>(), block.at(1).to_number<std::uint64_t>());
  }

  std::string next(SplitMix64& random) const {
    std::string text;
    for (std::uint64_t parts = 1 + random.below(12); parts > 0; --parts) {
      if (random.below(2) == 0) {
        text += atoms_[random.below(atoms_.size())];
        continue;
      }
      const auto [first, last] = blocks_[random.below(blocks_.size())];
      for (std::uint64_t n = 1 + random.below(6); n > 0; --n) lmkit::append_utf8(text, scalar(first + random.below(last - first + 1)));
    }
    return text;
  }

 private:
  std::vector<std::string> atoms_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> blocks_;
};

inline constexpr std::uint64_t fnv_start = 0xCBF29CE484222325u;

inline std::uint64_t fnv(std::span<const unsigned char> bytes, std::uint64_t value = fnv_start) {
  for (const unsigned char byte : bytes) value = (value ^ byte) * 0x100000001B3u;
  return value;
}

inline std::uint64_t fnv(const std::vector<lmkit::TokenId>& ids, std::uint64_t value = fnv_start) {
  for (const lmkit::TokenId id : ids)
    for (int shift = 0; shift < 32; shift += 8) value = (value ^ (static_cast<std::uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3u;
  return value;
}

inline std::string short_hash(std::uint64_t value) { return fmt::format("{:08x}", value & 0xFFFFFFFFu); }

}  // namespace lmkit_test
