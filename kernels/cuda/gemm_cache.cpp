// SPDX-License-Identifier: Apache-2.0
#include "gemm_cache.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <unistd.h>

namespace lmkit::kernels::cuda {

namespace {

namespace fs = std::filesystem;

constexpr int revision = 7;  // of our kernels and of what is measured: a new one forgets all choices
constexpr std::size_t most_entries = 100'000, most_line = 200;

const char* name_of(Dtype type) {
  switch (type) {
    case Dtype::f16: return "f16";
    case Dtype::bf16: return "bf16";
    case Dtype::f32: return "f32";
    default: return "other";
  }
}

std::string line_of(const std::string& key, GemmChoice choice) {
  return key + " = " + (choice.source == GemmChoice::Source::own ? "own " : "library ") + std::to_string(choice.candidate);
}

// "own 2", "library 11"
std::optional<GemmChoice> parse_choice(std::string_view text) {
  GemmChoice choice;
  if (text.starts_with("own ")) choice.source = GemmChoice::Source::own;
  else if (!text.starts_with("library ")) return {};
  text.remove_prefix(text.find(' ') + 1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), choice.candidate);
  if (error != std::errc{} || end != text.data() + text.size()) return {};
  if (choice.candidate < 0 || choice.candidate >= GemmChoice::most_candidates) return {};
  return choice;
}

fs::path cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache == '/') return fs::path(cache) / "lmkit/gemm";
  if (const char* home = std::getenv("HOME"); home && *home == '/') return fs::path(home) / ".cache/lmkit/gemm";
  return {};
}

}  // namespace

std::vector<std::int64_t> gemm_buckets(std::int64_t max_tokens) {
  std::vector<std::int64_t> buckets;
  for (const std::int64_t tokens : {1, 4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128})
    if (tokens < max_tokens) buckets.push_back(tokens);
  for (std::int64_t tokens = 128; tokens < max_tokens; tokens *= 2) {
    if (tokens > 128) buckets.push_back(tokens);
    if (tokens / 2 * 3 < max_tokens) buckets.push_back(tokens / 2 * 3);
  }
  if (max_tokens > 0) buckets.push_back(max_tokens);
  return buckets;
}

std::string gemm_key(const GemmShape& shape, bool has_bias, std::int64_t tokens) {
  return std::to_string(shape.rows) + ' ' + std::to_string(shape.cols) + ' ' + name_of(shape.dtype) + ' ' + name_of(shape.out) +
         (has_bias ? " bias" : "") + (shape.end == LinearEnd::add ? " add" : shape.end == LinearEnd::gate ? " gate" : "") +
         ' ' + std::to_string(tokens);
}

GemmCache::GemmCache(fs::path path) : path_(std::move(path)) { read(); }

fs::path GemmCache::path_for(std::string_view gpu, std::size_t library_version) {
  const fs::path folder = cache_folder();
  if (folder.empty()) return {};
  std::string name(gpu.substr(0, 100));
  std::ranges::replace_if(name, [](unsigned char c) { return !std::isalnum(c); }, '_');
  return folder / (name + '-' + std::to_string(library_version) + '-' + std::to_string(revision) + ".txt");
}

std::optional<GemmChoice> GemmCache::find(const std::string& key) const {
  const auto found = choices_.find(key);
  return found == choices_.end() ? std::nullopt : std::optional(found->second);
}

void GemmCache::add(const std::string& key, GemmChoice choice) {
  choices_[key] = choice;
  changed_ = true;
}

// Choices made here stay.
void GemmCache::read() {
  std::error_code none;
  if (!fs::is_regular_file(path_, none)) return;
  std::ifstream file(path_, std::ios::binary);
  char buffer[most_line];
  while (choices_.size() < most_entries && file.getline(buffer, most_line)) {  // a line too long ends the reading
    const std::string_view line(buffer, static_cast<std::size_t>(std::max<std::streamsize>(file.gcount() - !file.eof(), 0)));
    const std::size_t middle = line.find(" = ");
    if (middle == line.npos) continue;
    if (const auto choice = parse_choice(line.substr(middle + 3))) choices_.emplace(line.substr(0, middle), *choice);
  }
}

void GemmCache::save() {
  if (!changed_ || path_.empty()) return;
  changed_ = false;
  read();
  std::error_code failed;
  fs::create_directories(path_.parent_path(), failed);
  const fs::path draft = path_.string() + '.' + std::to_string(getpid());
  {
    std::ofstream file(draft, std::ios::binary);
    for (const auto& [key, choice] : choices_) file << line_of(key, choice) << '\n';
    if (!file.flush()) return void(fs::remove(draft, failed));
  }
  fs::rename(draft, path_, failed);
  if (failed) fs::remove(draft, failed);
}

}  // namespace lmkit::kernels::cuda
