// SPDX-License-Identifier: Apache-2.0
//
// The GGUF reader against files made here by a writer of our own: every kind of value and tensor comes back, and what
// is truncated, flipped or hostile is an Error(model) that says where.
#include <catch.hpp>
#include <gguf_writer.hpp>
#include <model_errors.hpp>
#include <tiny_gguf.hpp>

#include <lmkit/model/gguf.hpp>
#include <lmkit/model/gguf_model.hpp>

#include <bit>
#include <cstring>
#include <memory>
#include <random>

using namespace lmkit;
using namespace lmkit_test;

namespace {

// The bytes in memory of exactly their size, so that a sanitizer sees any read beyond them.
class Exact {
 public:
  explicit Exact(std::span<const std::byte> bytes) : size_(bytes.size()), memory_(new (std::align_val_t(64)) std::byte[size_]) {
    std::copy(bytes.begin(), bytes.end(), memory_);
  }
  ~Exact() { ::operator delete[](memory_, std::align_val_t(64)); }
  Exact(const Exact&) = delete;
  Exact& operator=(const Exact&) = delete;
  std::span<const std::byte> bytes() const { return {memory_, size_}; }

 private:
  std::size_t size_;
  std::byte* memory_;
};

// Opens and touches everything; true if it was accepted, false if it was an Error(model). Anything else escapes.
bool opens(std::span<const std::byte> bytes) try {
  const Exact file(bytes);
  const Gguf gguf(file.bytes());
  unsigned sum = 0;
  for (const auto& [name, view] : gguf.tensors())
    for (std::int64_t i = 0; i < view.rows * view.row_bytes; ++i) sum += std::to_integer<unsigned>(view.data[i]);
  read_model_config(gguf);
  read_tokenizer(gguf);
  return sum < ~0u;
} catch (const Error& error) {
  REQUIRE(error.kind() == ErrorKind::model);
  return false;
}

Error parse_error(const GgufWriter& writer) {
  return error_of([&] {
    const Exact file(writer.bytes());
    Gguf gguf(file.bytes());
  });
}

Bytes zeros(std::size_t count) { return Bytes(count); }

}  // namespace

TEST_CASE("values of every type come back") {
  Bytes nested = GgufWriter::array_head(gguf_array, 2);
  for (int i = 0; i < 2; ++i) append(nested, GgufWriter::array_head(gguf_string, 0));
  GgufWriter writer;
  writer.number("u8", gguf_u8, std::uint8_t{200}).number("i8", gguf_i8, std::int8_t{-100});
  writer.number("u16", gguf_u16, std::uint16_t{60000}).number("i16", gguf_i16, std::int16_t{-30000});
  writer.u32("u32", 4000000000u).number("i32", gguf_i32, -2000000000);
  writer.number("u64", gguf_u64, std::uint64_t{1} << 62).number("i64", gguf_i64, -(std::int64_t{1} << 62));
  writer.f32("f32", 1.5f).number("f64", gguf_f64, -2.25).boolean("yes", true).boolean("no", false);
  writer.text("text", "grüß").texts("texts", {"", "a", "bc"}).i32s("i32s", {3, -4}).raw("nested", gguf_array, nested);
  const Exact file(writer.bytes());
  const Gguf gguf(file.bytes());

  const auto integer = [&](const char* key) { return gguf.integer(key, INT64_MIN, INT64_MAX).value(); };
  CHECK(integer("u8") == 200);
  CHECK(integer("i8") == -100);
  CHECK(integer("u16") == 60000);
  CHECK(integer("i16") == -30000);
  CHECK(integer("u32") == 4000000000);
  CHECK(integer("i32") == -2000000000);
  CHECK(integer("u64") == std::int64_t{1} << 62);
  CHECK(integer("i64") == -(std::int64_t{1} << 62));
  CHECK(gguf.number("f32") == 1.5);
  CHECK(gguf.number("f64") == -2.25);
  CHECK(gguf.number("u8") == 200.0);
  CHECK(gguf.boolean("yes") == true);
  CHECK(gguf.boolean("no") == false);
  CHECK(gguf.text("text") == "grüß");
  CHECK(gguf.texts("texts") == std::vector<std::string>{"", "a", "bc"});
  CHECK(gguf.integers("i32s") == std::vector<std::int64_t>{3, -4});
  CHECK(gguf.values().at("nested").count == 2);
  CHECK(gguf.values().size() == 16);
  CHECK(!gguf.integer("absent", 0, 1));
  CHECK(!gguf.texts("absent"));
}

TEST_CASE("values of the wrong type or range name their key") {
  GgufWriter writer;
  writer.u32("count", 70).text("word", "x").boolean("flag", true).f32("nan", std::bit_cast<float>(0x7fc00000u));
  writer.texts("words", {"x"}).number("two", gguf_bool, std::uint8_t{2}).text("latin", "gr\xfc\xdf").texts("latins", {"ok", "\xff"});
  const Exact file(writer.bytes());
  const Gguf gguf(file.bytes());
  CHECK_THAT(error_of([&] { gguf.integer("count", 1, 64); }), Says("\"count\" is 70", "1 to 64"));
  CHECK_THAT(error_of([&] { gguf.integer("word", 0, 1); }), Says("\"word\" is string", "an integer"));
  CHECK_THAT(error_of([&] { gguf.integer("flag", 0, 1); }), Says("\"flag\" is bool", "an integer"));
  CHECK_THAT(error_of([&] { gguf.integers("words"); }), Says("\"words\" is an array of string", "an array of integers"));
  CHECK_THAT(error_of([&] { gguf.text("words"); }), Says("\"words\" is an array of string", "a string"));
  CHECK_THAT(error_of([&] { gguf.texts("word"); }), Says("\"word\" is string", "an array of strings"));
  CHECK_THAT(error_of([&] { gguf.number("word"); }), Says("\"word\" is string", "a number"));
  CHECK_THAT(error_of([&] { gguf.number("nan"); }), Says("\"nan\" is nan", "a finite number"));
  CHECK_THAT(error_of([&] { gguf.boolean("count"); }), Says("\"count\" is u32", "a bool"));
  CHECK_THAT(error_of([&] { gguf.boolean("two"); }), Says("\"two\" is the byte 2", "0 or 1"));
  CHECK_THAT(error_of([&] { gguf.text("latin"); }), Says("\"latin\" is not UTF-8"));
  CHECK_THAT(error_of([&] { gguf.texts("latins"); }), Says("element 1 of metadata \"latins\" is not UTF-8"));
}

TEST_CASE("tensors of every supported format are the bytes that were written") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const std::vector<std::pair<std::uint32_t, WeightFormat>> formats = {{ggml_f32, WeightFormat::f32},   {ggml_f16, WeightFormat::f16},
                                                                       {ggml_bf16, WeightFormat::bf16}, {ggml_q4_0, WeightFormat::q4_0},
                                                                       {ggml_q4_1, WeightFormat::q4_1}, {ggml_q8_0, WeightFormat::q8_0}};
  for (const std::uint32_t alignment : {8u, 32u, 4096u}) {
    GgufWriter writer;
    writer.alignment = alignment;
    writer.u32("general.alignment", alignment);
    std::vector<Bytes> contents;
    for (const auto& [number, format] : formats) {
      contents.push_back(random_matrix(random, number, 3 * 5, 96));
      writer.tensor(block_of(format).name, {96, 3, 5}, number, contents.back());
    }
    const Exact file(writer.bytes());
    const Gguf gguf(file.bytes());
    REQUIRE(gguf.tensors().size() == formats.size());
    for (std::size_t i = 0; i < formats.size(); ++i) {
      const MatrixView view = gguf.tensors().at(block_of(formats[i].second).name);
      CHECK(view.format == formats[i].second);
      CHECK(view.rows == 15);
      CHECK(view.cols == 96);
      REQUIRE(static_cast<std::size_t>(view.rows * view.row_bytes) == contents[i].size());
      CHECK(std::memcmp(view.data, contents[i].data(), contents[i].size()) == 0);
    }
  }
}

TEST_CASE("a header that is not GGUF v3 says what it is") {
  GgufWriter writer;
  writer.magic = "GGML";
  CHECK_THAT(parse_error(writer), Says("starts with 0x47474d4c", "\"GGUF\""));
  writer.magic = "GGUF";
  for (const std::uint32_t version : {0u, 1u, 2u, 4u, 0xffffffffu}) {
    writer.version = version;
    CHECK_THAT(parse_error(writer), Says("GGUF version " + std::to_string(version), "version 3"));
  }
  writer.version = 3u << 24;
  CHECK_THAT(parse_error(writer), Says("big-endian", "little endian"));
}

TEST_CASE("counts that the file cannot hold are refused before anything is allocated") {
  for (const std::uint64_t count : {std::uint64_t{5}, std::uint64_t{1} << 20, std::uint64_t{1} << 32, std::uint64_t{1} << 61, UINT64_MAX}) {
    INFO("count " << count);
    GgufWriter values, tensors, array, texts, length;
    values.extra_values = count;
    CHECK_THAT(parse_error(values), Says("metadata values"));
    tensors.extra_tensors = count;
    CHECK_THAT(parse_error(tensors), Says("tensors"));
    array.raw("a", gguf_array, GgufWriter::array_head(gguf_u64, count));
    CHECK_THAT(parse_error(array), Says("metadata \"a\"", "can hold"));
    texts.raw("a", gguf_array, GgufWriter::array_head(gguf_string, count));
    CHECK_THAT(parse_error(texts), Says("metadata \"a\"", "can hold"));
    Bytes bare;
    append(bare, count);
    length.raw("a", gguf_string, bare);
    if (count == 5) continue;  // the padding of the file is enough for that
    CHECK_THAT(parse_error(length), Says("metadata \"a\"", "complete"));
  }
}

TEST_CASE("arrays within arrays are bounded in depth") {
  const auto nested = [](int depth) {
    Bytes bytes;
    for (int i = 1; i < depth; ++i) append(bytes, GgufWriter::array_head(gguf_array, 1));
    append(bytes, GgufWriter::array_head(gguf_u8, 0));
    return GgufWriter().raw("deep", gguf_array, bytes);
  };
  CHECK_NOTHROW([&] {
    const Exact file(nested(8).bytes());
    Gguf gguf(file.bytes());
  }());
  CHECK_THAT(parse_error(nested(9)), Says("\"deep\" has arrays within arrays"));
  CHECK_THAT(parse_error(nested(100000)), Says("\"deep\" has arrays within arrays"));
}

TEST_CASE("bad keys, names and types are refused with their place") {
  CHECK_THAT(parse_error(GgufWriter().u32("", 1)), Says("a metadata key at byte 24 is 0 bytes long"));
  CHECK_THAT(parse_error(GgufWriter().u32(std::string(65536, 'k'), 1)), Says("65536 bytes long", "65535"));
  CHECK_THAT(parse_error(GgufWriter().u32("\xc3\x28", 1)), Says("not UTF-8"));
  CHECK_THAT(parse_error(GgufWriter().u32("a", 1).u32("a", 2)), Says("metadata \"a\" appears twice"));
  CHECK_THAT(parse_error(GgufWriter().raw("a", 13, zeros(8))), Says("metadata \"a\" has the unknown type 13"));
  CHECK_THAT(parse_error(GgufWriter().raw("a", gguf_array, GgufWriter::array_head(77, 0))), Says("metadata \"a\" has the unknown type 77"));
  CHECK_THAT(parse_error(GgufWriter().u32("esc\x1b[31m", 1).u32("esc\x1b[31m", 1)), Says("esc\\x1b[31m"));

  const Bytes row = zeros(128);
  CHECK_THAT(parse_error(GgufWriter().tensor(std::string(256, 'n'), {32}, ggml_f32, row)), Says("256 bytes long", "255"));
  CHECK_THAT(parse_error(GgufWriter().tensor("t", {32}, ggml_f32, row).tensor("t", {32}, ggml_f32, row)), Says("tensor \"t\" appears twice"));
  CHECK_THAT(parse_error(GgufWriter().tensor("t", {32}, ggml_q6_k, row)), Says("tensor \"t\" is Q6_K", "F32 F16 BF16 Q4_0 Q4_1 Q8_0"));
  CHECK_THAT(parse_error(GgufWriter().tensor("t", {32}, 999, row)), Says("tensor \"t\" is type 999"));
}

TEST_CASE("tensor shapes and offsets that do not fit are refused") {
  const auto with = [](const std::vector<std::uint64_t>& dims, std::uint32_t type = ggml_f32) {
    return parse_error(GgufWriter().tensor("t", dims, type, zeros(4096)));
  };
  CHECK_THAT(with({}), Says("\"t\" has 0 dimensions"));
  CHECK_THAT(with({2, 2, 2, 2, 2}), Says("\"t\" has 5 dimensions"));
  CHECK_THAT(with({32, 0}), Says("\"t\" has a dimension of 0"));
  CHECK_THAT(with({0}), Says("\"t\" has a dimension of 0"));
  CHECK_THAT(with({33, 2}, ggml_q8_0), Says("\"t\" has rows of 33 values", "a multiple of 32 for Q8_0"));
  const std::uint64_t big = std::uint64_t{1} << 32;
  CHECK_THAT(with({32, big, big}), Says("the size of tensor \"t\" does not fit"));
  CHECK_THAT(with({32, big, big, 0}), Says("\"t\" has a dimension of 0"));  // the product would wrap before it is 0
  CHECK_THAT(with({std::uint64_t{1} << 62, 4}), Says("the size of tensor \"t\" does not fit"));
  CHECK_THAT(with({32, big, 1u << 29}), Says("the size of tensor \"t\" does not fit"));
  CHECK_THAT(with({32, 33}), Says("tensor \"t\" takes 4224 bytes from offset 0", "complete"));

  const auto at = [](std::uint64_t offset) {
    return parse_error(GgufWriter().tensor("first", {32}, ggml_f32, zeros(128)).info("t", {32}, ggml_f32, offset));
  };
  CHECK_THAT(at(16), Says("tensor \"t\" starts at offset 16", "a multiple of 32"));
  CHECK_THAT(at(128), Says("tensor \"t\" takes 128 bytes from offset 128"));
  CHECK_THAT(at(UINT64_MAX - 31), Says("tensor \"t\" takes 128 bytes"));
  CHECK_THAT(parse_error(GgufWriter().info("t", {32}, ggml_f32, 0)), Says("the file has 0 bytes of data"));
  CHECK_THAT(parse_error(GgufWriter().tensor("first", {64}, ggml_f32, zeros(256)).info("second", {32}, ggml_f32, 128)), Says("overlap at offset 128"));
  CHECK_THAT(parse_error(GgufWriter().tensor("first", {64}, ggml_f32, zeros(256)).info("second", {64}, ggml_f32, 0)), Says("overlap at offset 0"));
}

TEST_CASE("the alignment must be a sensible power of two") {
  for (const std::uint32_t bad : {0u, 1u, 4u, 48u, 1u << 21})
    CHECK_THAT(parse_error(GgufWriter().u32("general.alignment", bad)), Says("general.alignment"));
  CHECK_THAT(parse_error(GgufWriter().text("general.alignment", "32")), Says("\"general.alignment\" is string"));
}

TEST_CASE("a file cut off at any length is refused") {
  TinyShape shape;
  shape.layers = 1;
  const GgufWriter writer = tiny_gguf(shape);
  const Bytes whole = writer.bytes();
  const std::size_t header = writer.header().size();
  REQUIRE(opens(whole));
  for (std::size_t size = 0; size < whole.size(); size += size < header + 64 ? 1 : 997) {
    INFO("size " << size);
    REQUIRE(!opens(std::span(whole).first(size)));
  }
  REQUIRE(!opens(std::span(whole).first(whole.size() - 1)));
}

TEST_CASE("a file with any header byte changed opens or is refused, and never does anything else") {
  TinyShape shape;
  shape.layers = 1;
  const GgufWriter writer = tiny_gguf(shape);
  Bytes file = writer.bytes();
  int refused = 0;
  for (std::size_t at = 0; at < writer.header().size(); ++at)
    for (const unsigned flip : {0x01u, 0x80u, 0xffu}) {
      INFO("byte " << at << " xor " << flip);
      file[at] ^= static_cast<std::byte>(flip);
      refused += !opens(file);
      file[at] ^= static_cast<std::byte>(flip);
    }
  CHECK(refused > 1000);
}
