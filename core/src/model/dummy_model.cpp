// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/base/half.hpp>
#include <lmkit/model/dummy_model.hpp>
#include <lmkit/model/hf_model.hpp>
#include <lmkit/model/tensor_shapes.hpp>
#include <lmkit/text/tokenizer_json.hpp>
#include <lmkit/text/utf8.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <vector>

namespace lmkit {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t buffer_values = std::int64_t{32} << 20;  // more where a single row is longer
constexpr std::int64_t slide = 4099;                            // values between the starts of successive matrices: a prime

// 16 random bits are one of these values, which is faster than drawing each anew.
std::vector<BFloat16> normal_values(double deviation) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal(0, deviation);
  std::vector<BFloat16> values(1 << 16);
  for (BFloat16& value : values) value = to_bfloat16(static_cast<float>(normal(random)));
  return values;
}

std::vector<BFloat16> random_buffer(std::int64_t size, double deviation) {
  const std::vector<BFloat16> values = normal_values(deviation);
  std::mt19937_64 random(2);
  std::vector<BFloat16> buffer(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < buffer.size();) {
    std::uint64_t bits = random();
    for (const std::size_t end = std::min(i + 4, buffer.size()); i < end; ++i, bits >>= 16) buffer[i] = values[bits & 0xffff];
  }
  return buffer;
}

// Floats in [centre - spread, centre + spread].
std::vector<float> random_vector(std::int64_t size, float centre, float spread) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(centre - spread, centre + spread);
  std::vector<float> values(static_cast<std::size_t>(size));
  for (float& value : values) value = uniform(random);
  return values;
}

// GPT-2's spelling of a byte: printable Latin-1 as it is, the others from U+0100 on.
TokenizerData byte_tokenizer(int vocabulary) {
  if (vocabulary <= 256)
    throw Error(ErrorKind::model, fmt::format("a vocabulary of {} without a tokenizer.json", vocabulary), "at least 257 tokens, for 256 bytes and an end");
  TokenizerData data;
  data.model = "bpe";
  data.pre_tokenizer = "none";
  char32_t beyond = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
    append_utf8(data.tokens.emplace_back(), prints ? byte : beyond++);
  }
  data.kinds.assign(256, TokenKind::normal);
  data.tokens.emplace_back("<|endoftext|>");
  data.kinds.push_back(TokenKind::control);
  data.eos = 256;
  return data;
}

class DummyModel final : public ModelFile {
 public:
  DummyModel(const fs::path& config_json, bool has_tokenizer) {
    HfConfig config = read_hf_configs(config_json);
    config_ = config.model;
    if (config_.name.empty()) config_.name = fs::absolute(config_json).parent_path().filename().string();
    tokenizer_ = has_tokenizer ? read_tokenizer(config_json.parent_path()) : byte_tokenizer(config_.vocabulary);
    if (!has_tokenizer) config.bos.reset(), config.eos.clear();  // ids of the tokenizer that is not there
    complete_tokenizer(config, tokenizer_);
    make_tensors();
  }

  const ModelConfig& config() const noexcept override { return config_; }
  const TokenizerData& tokenizer() const noexcept override { return tokenizer_; }
  std::optional<MatrixView> find(std::string_view name) const noexcept override {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  void make_tensors() {
    const TensorShapes shapes = tensor_shapes(config_);
    std::int64_t widest = 0;
    for (const auto& [name, shape] : shapes) widest = std::max(widest, shape.cols);
    norms_ = random_vector(widest, 1.0f, 0.25f);
    biases_ = random_vector(widest, 0.0f, 0.25f);
    matrices_ = random_buffer(std::max(buffer_values, 4 * widest), 1 / std::sqrt(config_.hidden));

    std::int64_t start = 0;
    for (const auto& [name, shape] : shapes) {
      if (name.ends_with("norm.weight")) tensors_[name] = vector_in(norms_, shape);
      else if (name.ends_with(".bias")) tensors_[name] = vector_in(biases_, shape);
      else tensors_[name] = matrix_in(matrices_, shape, start += slide);
    }
  }

  static MatrixView vector_in(const std::vector<float>& buffer, const TensorShape& shape) {
    return {WeightFormat::f32, 1, shape.cols, shape.cols * 4, reinterpret_cast<const std::byte*>(buffer.data())};
  }

  // Rows side by side if the buffer holds them, else as far apart as fits. It starts at `start` or earlier.
  static MatrixView matrix_in(const std::vector<BFloat16>& buffer, const TensorShape& shape, std::int64_t start) {
    const std::int64_t room = static_cast<std::int64_t>(buffer.size()) - shape.cols;  // of where the last row may start
    const std::int64_t stride = shape.rows == 1 ? shape.cols : std::min(shape.cols, room / (shape.rows - 1));
    const std::int64_t slack = room - stride * (shape.rows - 1);
    return {WeightFormat::bf16, shape.rows, shape.cols, stride * 2, reinterpret_cast<const std::byte*>(buffer.data() + start % (slack + 1))};
  }

  ModelConfig config_;
  TokenizerData tokenizer_;
  std::vector<BFloat16> matrices_;
  std::vector<float> norms_, biases_;
  std::map<std::string, MatrixView, std::less<>> tensors_;
};

}  // namespace

std::unique_ptr<ModelFile> open_dummy_model(const std::string& path) try {
  const fs::path given(path);
  std::error_code ignored;
  if (!fs::is_directory(given, ignored)) return std::make_unique<DummyModel>(given, false);
  return std::make_unique<DummyModel>(given / "config.json", fs::exists(given / "tokenizer.json", ignored));
} catch (const Error& error) {
  throw Error(error.kind(), fmt::format("{}: {}", path, error.found()), error.expected(), error.remedy());
}

}  // namespace lmkit
