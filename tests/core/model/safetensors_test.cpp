// SPDX-License-Identifier: Apache-2.0
//
// The safetensors reader against files made here: good ones come back byte for byte, hostile ones are an Error(model).
#include <catch.hpp>
#include <model_errors.hpp>
#include <safetensors_writer.hpp>
#include <tiny_gguf.hpp>

#include <lmkit/model/safetensors.hpp>

#include <cstring>
#include <random>

using namespace lmkit;
using namespace lmkit_test;

namespace {

Error error_in(const Bytes& file) {
  return error_of([&] { Safetensors content(file); });
}

// A header for one tensor "t" over `data` bytes of data, padded to 8.
Error error_in_tensor(const std::string& facts, std::size_t data = 16) {
  std::string header = "{\"t\":{" + facts + "}}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return error_in(file_with(header, Bytes(data)));
}

}  // namespace

TEST_CASE("safetensors of each type are the bytes that were written") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const Bytes f32 = random_matrix(random, ggml_f32, 6, 10), f16 = random_matrix(random, ggml_f16, 6, 10), bf16 = random_matrix(random, ggml_bf16, 1, 10);
  const Bytes file = SafetensorsWriter().tensor("a", "F32", {2, 3, 10}, f32).tensor("b", "F16", {6, 10}, f16).tensor("c", "BF16", {10}, bf16).bytes();
  const Safetensors content(file);
  const auto same = [&](const char* name, WeightFormat format, std::int64_t rows, const Bytes& bytes) {
    const MatrixView view = content.tensors().find(name)->second;
    CHECK(view.format == format);
    CHECK(view.rows == rows);
    CHECK(view.cols == 10);
    REQUIRE(static_cast<std::size_t>(view.rows * view.row_bytes) == bytes.size());
    CHECK(std::memcmp(view.data, bytes.data(), bytes.size()) == 0);
  };
  same("a", WeightFormat::f32, 6, f32);
  same("b", WeightFormat::f16, 6, f16);
  same("c", WeightFormat::bf16, 1, bf16);
}

TEST_CASE("a header that does not fit its file is refused") {
  CHECK_THAT(error_in(Bytes(7)), Says("ends at byte 7, before its header"));
  for (const std::uint64_t length : {std::uint64_t{9}, std::uint64_t{100'000'000}, std::uint64_t{100'000'001}, UINT64_MAX, UINT64_MAX - 7}) {
    Bytes file;
    append(file, length);
    append(file, Bytes(8));
    CHECK_THAT(error_in(file), Says("a header of " + std::to_string(length)));
  }
}

TEST_CASE("a header that is not one plain JSON object is refused") {
  for (const char* header : {"", "{", "[]", "nonsense", "{} {}", "{\"a\":}", "\"x\"", "{\"a\":{}}extra"}) {
    INFO(header);
    CHECK_THAT(error_in(file_with(header)), Says("the safetensors header"));
  }
  CHECK_THAT(error_in(file_with("{\"a\":1}")), Says("\"a\" is not described by an object"));
  CHECK_THAT(error_in(file_with("{\"a\":{},\"a\":{}}")), Says("has the key \"a\" twice"));
  CHECK_THAT(error_in(file_with("{\"a\":{\"dtype\":\"F32\",\"\\u0064type\":\"F16\"}}")), Says("has the key \"dtype\" twice"));
  std::string deep(100000, '[');
  CHECK_THAT(error_in(file_with("{\"a\":" + deep)), Says("the safetensors header is not JSON"));
}

TEST_CASE("tensors that do not fit their bytes are refused") {
  const std::string f32 = "\"dtype\":\"F32\",";
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[4]"), Says("tensor \"t\": it lacks"));
  CHECK_THAT(error_in_tensor("\"shape\":[4],\"data_offsets\":[0,16]"), Says("tensor \"t\": it lacks"));
  CHECK_THAT(error_in_tensor(f32 + "\"data_offsets\":[0,16]"), Says("tensor \"t\": it lacks"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[4],\"data_offsets\":[0,8,16]"), Says("tensor \"t\": it lacks"));
  CHECK_THAT(error_in_tensor("\"dtype\":\"F8_E4M3\",\"shape\":[16],\"data_offsets\":[0,16]"), Says("tensor \"t\": its type is \"F8_E4M3\"", "F32 F16 BF16"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[-4],\"data_offsets\":[0,16]"), Says("\"shape\" is -4"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[4.0],\"data_offsets\":[0,16]"), Says("\"shape\" has the wrong type"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[18446744073709551615],\"data_offsets\":[0,16]"), Says("\"shape\" is 18446744073709551615"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[0],\"data_offsets\":[0,0]", 0), Says("a dimension of 0"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[1,1,1,1,4],\"data_offsets\":[0,16]"), Says("5 dimensions"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), Says("its data_offsets", "fits in 64 bits"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[4611686018427387904],\"data_offsets\":[0,0]"), Says("its data_offsets", "fits in 64 bits"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[3],\"data_offsets\":[0,16]"), Says("its data_offsets are 0 and 16", "12 bytes"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[4],\"data_offsets\":[16,0]"), Says("its data_offsets are 16 and 0"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[5],\"data_offsets\":[0,20]"), Says("ends at offset 20, but the file has 16 bytes"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[2],\"data_offsets\":[8,16]"), Says("starts at offset 8", "0, where the one before it ends"));
  CHECK_THAT(error_in_tensor(f32 + "\"shape\":[2],\"data_offsets\":[0,8]"), Says("8 bytes of data belong to no tensor"));

  const std::string two = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}";
  CHECK_THAT(error_in(file_with(two, Bytes(12))), Says("tensor \"b\" starts at offset 4", "8"));
}

TEST_CASE("tensors that are not aligned to their type are refused") {
  std::string header = "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
  header.resize((header.size() + 7) / 8 * 8 + 1, ' ');
  CHECK_THAT(error_in(file_with(header, Bytes(4))), Says("\"t\" is not aligned"));
}

TEST_CASE("a safetensors file cut off anywhere or with any header byte changed is read or refused") {
  Bytes file = SafetensorsWriter().tensor("model.norm.weight", "F32", {10}, Bytes(40)).tensor("x", "BF16", {2, 10}, Bytes(40)).bytes();
  for (std::size_t size = 0; size < file.size(); ++size) CHECK(error_in(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size))).kind() == ErrorKind::model);
  for (std::size_t at = 0; at + 80 < file.size(); ++at)
    for (const unsigned flip : {0x01u, 0x02u, 0x10u, 0x80u, 0xffu}) {
      file[at] ^= static_cast<std::byte>(flip);
      try {
        const Safetensors content(file);
        for (const auto& [name, view] : content.tensors()) {
          REQUIRE(view.data >= file.data());
          REQUIRE(view.data + view.rows * view.row_bytes <= file.data() + file.size());
        }
      } catch (const Error& error) {
        REQUIRE(error.kind() == ErrorKind::model);
      }
      file[at] ^= static_cast<std::byte>(flip);
    }
}
