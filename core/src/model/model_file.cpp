// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/model/gguf_model.hpp>
#include <lmkit/model/hf_model.hpp>
#include <lmkit/model/mapped_file.hpp>
#include <lmkit/model/model_file.hpp>

#include <fmt/format.h>

#include <filesystem>

namespace lmkit {
namespace {

class GgufModel final : public ModelFile {
 public:
  explicit GgufModel(const std::string& path)
      : file_(path), gguf_(file_.bytes()), config_(read_model_config(gguf_)), tokenizer_(read_tokenizer(gguf_)) {}

  const ModelConfig& config() const noexcept override { return config_; }
  const TokenizerData& tokenizer() const noexcept override { return tokenizer_; }

  std::optional<MatrixView> find(std::string_view name) const noexcept override {
    const auto found = gguf_.tensors().find(name);
    if (found == gguf_.tensors().end()) return std::nullopt;
    return found->second;
  }

 private:
  MappedFile file_;
  Gguf gguf_;
  ModelConfig config_;
  TokenizerData tokenizer_;
};

}  // namespace

MatrixView ModelFile::matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const {
  const auto view = find(name);
  const std::string shape = fmt::format("{} rows of {} values", rows, cols);
  if (!view) throw Error(ErrorKind::model, fmt::format("tensor {:?} is missing", name), shape, "a file of the whole model");
  if (view->rows != rows || view->cols != cols)
    throw Error(ErrorKind::model, fmt::format("tensor {:?} has {} rows of {} values", name, view->rows, view->cols), shape);
  return *view;
}

std::unique_ptr<ModelFile> open_model(const std::string& path) try {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return open_hf_directory(path);
  return std::make_unique<GgufModel>(path);
} catch (const Error& error) {
  throw Error(error.kind(), fmt::format("{}: {}", path, error.found()), error.expected(), error.remedy());
}

}  // namespace lmkit
