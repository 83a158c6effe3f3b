// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/checked.hpp>
#include <lmkit/base/error.hpp>
#include <lmkit/model/safetensors.hpp>

#include "json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace lmkit {
namespace {

constexpr std::uint64_t longest_header = 100'000'000;  // the format's own limit
constexpr const char* again = "downloading the file again";

[[noreturn]] void bad(std::string found, std::string expected = {}, std::string remedy = again) {
  throw Error(ErrorKind::model, std::move(found), std::move(expected), std::move(remedy));
}

struct Parts {
  std::string_view header;
  std::span<const std::byte> data;
};

Parts split(std::span<const std::byte> file) {
  std::uint64_t length;
  if (file.size() < sizeof length) bad(fmt::format("the file ends at byte {}, before its header", file.size()), "a complete safetensors file");
  std::memcpy(&length, file.data(), sizeof length);
  const auto rest = file.subspan(sizeof length);
  if (length > longest_header) bad(fmt::format("a header of {} bytes", length), fmt::format("at most {}", longest_header));
  if (length > rest.size())
    bad(fmt::format("a header of {} bytes in a file of {}", length, file.size()), "a complete safetensors file");
  return {{reinterpret_cast<const char*>(rest.data()), length}, rest.subspan(length)};
}

WeightFormat format_of(const std::string& dtype) {
  if (dtype == "F32") return WeightFormat::f32;
  if (dtype == "F16") return WeightFormat::f16;
  if (dtype == "BF16") return WeightFormat::bf16;
  bad(fmt::format("its type is {:?}", dtype), "F32 F16 BF16", "a file of this model in one of these types");
}

struct Placed {
  std::string name;
  MatrixView view;
  std::uint64_t begin, end;
};

Placed read_tensor(std::string_view name, const boost::json::object& facts) try {
  const auto dtype = json_text(facts, "dtype");
  const auto shape = json_integers(facts, "shape", 0, INT64_MAX);
  const auto offsets = json_integers(facts, "data_offsets", 0, INT64_MAX);
  if (!dtype || !facts.contains("shape") || offsets.size() != 2) bad("it lacks a dtype, a shape or two data_offsets");
  if (shape.size() > 4) bad(fmt::format("it has {} dimensions", shape.size()), "at most 4");
  if (std::ranges::find(shape, 0) != shape.end()) bad("it has a dimension of 0", "at least 1");

  const WeightFormat format = format_of(*dtype);
  const auto element = static_cast<std::uint64_t>(block_of(format).bytes);
  const std::int64_t cols = shape.empty() ? 1 : shape.back();
  std::optional<std::uint64_t> rows = 1;
  for (std::size_t d = 0; d + 1 < shape.size(); ++d)
    if (rows) rows = checked_mul(*rows, static_cast<std::uint64_t>(shape[d]));
  const auto row_bytes = checked_mul(static_cast<std::uint64_t>(cols), element);
  const auto bytes = rows && row_bytes ? checked_mul(*rows, *row_bytes) : std::nullopt;
  const auto begin = static_cast<std::uint64_t>(offsets[0]), end = static_cast<std::uint64_t>(offsets[1]);
  if (!bytes || end < begin || end - begin != *bytes)
    bad(fmt::format("its data_offsets are {} and {}", begin, end),
        bytes ? fmt::format("{} bytes, which is its shape's size", *bytes) : std::string("a shape whose size fits in 64 bits"));
  return {std::string(name),
          {format, static_cast<std::int64_t>(*rows), cols, static_cast<std::int64_t>(*row_bytes), nullptr}, begin, end};
} catch (const Error& error) {
  throw Error(error.kind(), fmt::format("tensor {:?}: {}", name, error.found()), error.expected(), error.remedy());
}

// Points each tensor at its bytes. In order of offset they must cover the data.
void place(std::vector<Placed>& tensors, std::span<const std::byte> data) {
  std::ranges::sort(tensors, {}, &Placed::begin);
  std::uint64_t covered = 0;
  for (Placed& tensor : tensors) {
    if (tensor.begin != covered)
      bad(fmt::format("tensor {:?} starts at offset {}", tensor.name, tensor.begin), fmt::format("{}, where the one before it ends", covered));
    if (tensor.end > data.size())
      bad(fmt::format("tensor {:?} ends at offset {}, but the file has {} bytes of data", tensor.name, tensor.end, data.size()),
          "a complete safetensors file");
    tensor.view.data = data.data() + tensor.begin;
    if (reinterpret_cast<std::uintptr_t>(tensor.view.data) % static_cast<std::uintptr_t>(block_of(tensor.view.format).bytes) != 0)
      bad(fmt::format("tensor {:?} is not aligned to its type", tensor.name), "a header padded to 8 bytes",
          "saving the file again with the safetensors library");
    covered = tensor.end;
  }
  if (covered != data.size())
    bad(fmt::format("{} bytes of data belong to no tensor", data.size() - covered), "a file that ends with its last tensor");
}

}  // namespace

Safetensors::Safetensors(std::span<const std::byte> file) {
  const Parts parts = split(file);
  const boost::json::object header = parse_json(parts.header, "the safetensors header");
  std::vector<Placed> tensors;
  for (const auto& entry : header) {
    if (entry.key() == "__metadata__") continue;
    const std::string_view name(entry.key().data(), entry.key().size());
    if (!entry.value().is_object()) bad(fmt::format("tensor {:?} is not described by an object", name));
    tensors.push_back(read_tensor(name, entry.value().get_object()));
  }
  place(tensors, parts.data);
  for (Placed& tensor : tensors) tensors_.emplace(std::move(tensor.name), tensor.view);
}

}  // namespace lmkit
