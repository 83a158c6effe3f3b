// SPDX-License-Identifier: Apache-2.0
//
// Which algorithm runs a product of matrices: token counts in buckets, and a text file that remembers what was measured.
//
// A line of the file is a key and a choice, "6144 4096 bf16 bf16 bias add 64 = library 3": rows, cols, types of W and y, what comes
// with the product, the largest token count of the bucket; the fourth of the candidates that cuBLASLt's heuristic names for that
// product, or the third kernel of our own. A candidate is a number, so nothing the file says is more than a choice among what the
// library offers. Lines that do not read like this are skipped. No CUDA in this file.
#pragma once

#include <lmkit/kernels/cuda/gemm.hpp>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lmkit::kernels::cuda {

struct GemmChoice {
  enum class Source { library, own };
  Source source = Source::library;
  int candidate = 0;  // of that source, in [0, most_candidates)
  static constexpr int most_candidates = 64;
  friend bool operator==(const GemmChoice&, const GemmChoice&) = default;
};

// The largest token count of each bucket up to max_tokens, ascending; the last is max_tokens.
std::vector<std::int64_t> gemm_buckets(std::int64_t max_tokens);

std::string gemm_key(const GemmShape& shape, bool has_bias, std::int64_t tokens);

// What was measured, by key. A path that is empty or cannot be read or written costs a measurement, never an error.
class GemmCache {
 public:
  explicit GemmCache(std::filesystem::path path);

  // $XDG_CACHE_HOME/lmkit/gemm (or $HOME/.cache/…)/<gpu>-<library>-<revision>.txt; empty without a home
  static std::filesystem::path path_for(std::string_view gpu, std::size_t library_version);

  std::optional<GemmChoice> find(const std::string& key) const;
  void add(const std::string& key, GemmChoice choice);

  // Writes what was added beside what others have written since, by a rename. Does nothing when nothing is new.
  void save();

 private:
  void read();

  std::filesystem::path path_;
  std::map<std::string, GemmChoice, std::less<>> choices_;
  bool changed_ = false;
};

}  // namespace lmkit::kernels::cuda
