// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/checked.hpp>
#include <lmkit/base/error.hpp>
#include <lmkit/model/gguf.hpp>
#include <lmkit/text/utf8.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace lmkit {
namespace {

static_assert(std::endian::native == std::endian::little, "values are read as they lie");

constexpr std::uint64_t longest_key = 65535;  // the specification's limits, the second with some room
constexpr std::uint64_t longest_name = 255;
constexpr std::uint64_t most_values = 1u << 16, most_tensors = 1u << 20;  // far above any model, far below any memory
constexpr int deepest_array = 8;
constexpr const char* again = "downloading the file again";

[[noreturn]] void bad(std::string found, std::string expected = {}, std::string remedy = {}) {
  throw Error(ErrorKind::model, std::move(found), std::move(expected), std::move(remedy));
}

// ---- types

constexpr std::array<const char*, 13> type_names = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};

std::string name_of(GgufType type) { return type_names[static_cast<std::size_t>(type)]; }

// Bytes of a value; of a string and an array the fewest there can be.
constexpr std::uint64_t least_bytes(GgufType type) noexcept {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean: return 1;
    case GgufType::u16:
    case GgufType::i16: return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32: return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
    case GgufType::string: return 8;
    case GgufType::array: return 12;
  }
  return 1;
}

struct TensorType {
  std::uint32_t number;
  const char* name;
};

constexpr std::array<TensorType, 34> tensor_types = {{
    {0, "F32"},      {1, "F16"},      {2, "Q4_0"},    {3, "Q4_1"},     {6, "Q5_0"},    {7, "Q5_1"},   {8, "Q8_0"},
    {9, "Q8_1"},     {10, "Q2_K"},    {11, "Q3_K"},   {12, "Q4_K"},    {13, "Q5_K"},   {14, "Q6_K"},  {15, "Q8_K"},
    {16, "IQ2_XXS"}, {17, "IQ2_XS"},  {18, "IQ3_XXS"}, {19, "IQ1_S"},  {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},
    {23, "IQ4_XS"},  {24, "I8"},      {25, "I16"},    {26, "I32"},     {27, "I64"},    {28, "F64"},   {29, "IQ1_M"},
    {30, "BF16"},    {34, "TQ1_0"},   {35, "TQ2_0"},  {39, "MXFP4"},   {40, "NVFP4"},  {41, "Q1_0"},
}};

std::optional<WeightFormat> weight_format(std::uint32_t type) noexcept {
  switch (type) {
    case 0: return WeightFormat::f32;
    case 1: return WeightFormat::f16;
    case 2: return WeightFormat::q4_0;
    case 3: return WeightFormat::q4_1;
    case 8: return WeightFormat::q8_0;
    case 30: return WeightFormat::bf16;
  }
  return std::nullopt;
}

std::string tensor_type_name(std::uint32_t type) {
  const auto known = std::ranges::find(tensor_types, type, &TensorType::number);
  return known == tensor_types.end() ? fmt::format("type {}", type) : known->name;
}

// ---- the cursor

// Reads forwards and never behind the end. `what` is the part being read, for the message.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> file) : file_(file) {}

  std::uint64_t position() const noexcept { return position_; }
  std::uint64_t left() const noexcept { return file_.size() - position_; }

  std::span<const std::byte> take(std::uint64_t count, std::string_view what) {
    if (count > left())
      bad(fmt::format("the file ends at byte {} inside {}, which takes {} bytes from byte {}", file_.size(), what, count, position_),
          "a complete GGUF file", again);
    const auto bytes = file_.subspan(position_, count);
    position_ += count;
    return bytes;
  }

  template <class T>
  T read(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }

  std::string_view text(std::string_view what) {
    const auto length = read<std::uint64_t>(what);
    const auto bytes = take(length, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // A count of things that take at least `least` bytes each, which must fit into the rest of the file.
  std::uint64_t count(std::uint64_t least, std::uint64_t most, std::string_view what) {
    const std::uint64_t start = position_;
    const auto value = read<std::uint64_t>(what);
    if (value > most) bad(fmt::format("{} {} (byte {})", value, what, start), fmt::format("at most {}", most), again);
    must_hold(value, least, what, start);
    return value;
  }

  void must_hold(std::uint64_t count, std::uint64_t least, std::string_view what, std::uint64_t start) const {
    if (count > left() / least)
      bad(fmt::format("{} {} (byte {})", count, what, start),
          fmt::format("at most {}, which is what the remaining {} bytes of the file can hold", left() / least, left()), again);
  }

  // A key or tensor name.
  std::string_view name(std::uint64_t longest, std::string_view what) {
    const std::uint64_t start = position_;
    const auto length = read<std::uint64_t>(what);
    if (length == 0 || length > longest)
      bad(fmt::format("{} at byte {} is {} bytes long", what, start, length), fmt::format("1 to {} bytes", longest), again);
    const auto bytes = take(length, what);
    const std::string_view name(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (!is_valid_utf8(name)) bad(fmt::format("{} at byte {} is not UTF-8", what, start), {}, again);
    return name;
  }

 private:
  std::span<const std::byte> file_;
  std::uint64_t position_ = 0;
};

// ---- header

struct Header {
  std::uint64_t tensors, values;
};

Header read_header(Cursor& in) {
  const auto magic = in.take(4, "the magic number");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) {
    std::uint32_t found;
    std::memcpy(&found, magic.data(), 4);
    bad(fmt::format("the file starts with 0x{:08x}", __builtin_bswap32(found)), "\"GGUF\"", "a GGUF file or a Hugging Face directory");
  }
  const auto version = in.read<std::uint32_t>("the version");
  if (version == __builtin_bswap32(3)) bad("a big-endian GGUF file", "little endian", "a file made for x86 or ARM machines");
  if (version != 3) bad(fmt::format("GGUF version {}", version), "version 3", "converting the model again with a current converter");
  const auto tensors = in.count(32, most_tensors, "tensors");
  const auto values = in.count(13, most_values, "metadata values");
  return {tensors, values};
}

// ---- values

GgufType read_type(Cursor& in, std::string_view where) {
  const auto number = in.read<std::uint32_t>(where);
  if (number >= type_names.size())
    bad(fmt::format("{} has the unknown type {} (byte {})", where, number, in.position() - 4), "a GGUF value type from 0 to 12", again);
  return static_cast<GgufType>(number);
}

struct ArrayHead {
  GgufType element;
  std::uint64_t count;
};

ArrayHead read_array_head(Cursor& in, std::string_view where) {
  const auto element = read_type(in, where);
  return {element, in.count(least_bytes(element), UINT64_MAX, where)};
}

// Steps over `count` elements. Arrays within arrays are kept on a list, not on the stack.
void skip_elements(Cursor& in, GgufType element, std::uint64_t count, std::string_view where) {
  std::vector<ArrayHead> open = {{element, count}};
  while (!open.empty()) {
    ArrayHead& array = open.back();
    if (array.element == GgufType::array && array.count > 0) {
      if (open.size() == deepest_array)
        bad(fmt::format("{} has arrays within arrays, more than {} deep", where, deepest_array), "values as model files have them", again);
      --array.count;
      open.push_back(read_array_head(in, where));
      continue;
    }
    if (array.element == GgufType::string) {
      for (; array.count > 0; --array.count) in.text(where);
    } else {
      in.take(array.count * least_bytes(array.element), where);  // cannot wrap: the count was held against the file
    }
    open.pop_back();
  }
}

GgufValue read_value(Cursor& in, std::span<const std::byte> file, std::string_view where) {
  GgufValue value;
  value.type = read_type(in, where);
  ArrayHead head{value.type, 1};
  if (value.type == GgufType::array) head = read_array_head(in, where);
  value.element = head.element;
  value.count = head.count;
  const std::uint64_t start = in.position();
  skip_elements(in, head.element, head.count, where);
  value.bytes = file.subspan(start, in.position() - start);
  return value;
}

std::uint64_t alignment_of(const Gguf& gguf) {
  const auto alignment = static_cast<std::uint64_t>(gguf.integer("general.alignment", 8, 1 << 20).value_or(32));
  if (!std::has_single_bit(alignment)) bad(fmt::format("general.alignment is {}", alignment), "a power of two", again);
  return alignment;
}

// ---- tensors

// A tensor's place in the file, before it is known where the data section starts.
struct Placed {
  std::string_view name;
  MatrixView view;
  std::uint64_t offset, bytes;
};

Placed read_tensor(Cursor& in) {
  Placed tensor;
  tensor.name = in.name(longest_name, "a tensor's name");
  const std::string where = fmt::format("tensor {:?}", tensor.name);
  const auto rank = in.read<std::uint32_t>(where);
  if (rank < 1 || rank > 4) bad(fmt::format("{} has {} dimensions", where, rank), "1 to 4", again);
  const auto cols = in.read<std::uint64_t>(where);
  std::optional<std::uint64_t> rows = 1;
  bool empty = cols == 0;
  for (std::uint32_t d = 1; d < rank; ++d) {
    const auto size = in.read<std::uint64_t>(where);
    empty |= size == 0;
    if (rows) rows = checked_mul(*rows, size);
  }
  if (empty) bad(fmt::format("{} has a dimension of 0", where), "at least 1", again);

  const auto type = in.read<std::uint32_t>(where);
  const auto format = weight_format(type);
  if (!format)
    bad(fmt::format("{} is {}", where, tensor_type_name(type)), "F32 F16 BF16 Q4_0 Q4_1 Q8_0",
        "a file of this model in one of these formats, Q8_0 for example");
  const WeightBlock block = block_of(*format);
  if (cols % static_cast<std::uint64_t>(block.values) != 0)
    bad(fmt::format("{} has rows of {} values", where, cols), fmt::format("a multiple of {} for {}", block.values, block.name), again);
  const auto row_bytes = checked_mul(cols / block.values, block.bytes);
  const auto bytes = rows && row_bytes ? checked_mul(*rows, *row_bytes) : std::nullopt;
  if (!bytes || *bytes > INT64_MAX || cols > INT64_MAX) bad(fmt::format("the size of {} does not fit in 64 bits", where), "a tensor within the file", again);

  tensor.view = {*format, static_cast<std::int64_t>(*rows), static_cast<std::int64_t>(cols), static_cast<std::int64_t>(*row_bytes), nullptr};
  tensor.bytes = *bytes;
  tensor.offset = in.read<std::uint64_t>(where);
  return tensor;
}

// Points each tensor at its bytes: aligned, inside the data section and nobody else's.
void place(std::vector<Placed>& tensors, std::span<const std::byte> file, std::uint64_t start, std::uint64_t alignment) {
  const std::uint64_t size = start < file.size() ? file.size() - start : 0;
  for (Placed& tensor : tensors) {
    const std::string where = fmt::format("tensor {:?}", tensor.name);
    if (tensor.offset % alignment != 0)
      bad(fmt::format("{} starts at offset {}", where, tensor.offset), fmt::format("a multiple of {}", alignment), again);
    const auto end = checked_add(tensor.offset, tensor.bytes);
    if (!end || *end > size)
      bad(fmt::format("{} takes {} bytes from offset {}, but the file has {} bytes of data", where, tensor.bytes, tensor.offset, size),
          "a complete GGUF file", again);
    tensor.view.data = file.data() + start + tensor.offset;
  }
  std::ranges::sort(tensors, {}, &Placed::offset);
  for (std::size_t i = 1; i < tensors.size(); ++i)
    if (tensors[i].offset < tensors[i - 1].offset + tensors[i - 1].bytes)
      bad(fmt::format("tensors {:?} and {:?} overlap at offset {}", tensors[i - 1].name, tensors[i].name, tensors[i].offset), {}, again);
}

}  // namespace

Gguf::Gguf(std::span<const std::byte> file) {
  Cursor in(file);
  const Header header = read_header(in);

  for (std::uint64_t i = 0; i < header.values; ++i) {
    const auto key = in.name(longest_key, "a metadata key");
    const auto value = read_value(in, file, fmt::format("metadata {:?}", key));
    if (!values_.emplace(key, value).second) bad(fmt::format("metadata {:?} appears twice", key), {}, again);
  }
  const std::uint64_t alignment = alignment_of(*this);

  std::vector<Placed> tensors;
  for (std::uint64_t i = 0; i < header.tensors; ++i) tensors.push_back(read_tensor(in));
  place(tensors, file, (in.position() + alignment - 1) / alignment * alignment, alignment);
  for (const Placed& tensor : tensors)
    if (!tensors_.emplace(tensor.name, tensor.view).second) bad(fmt::format("tensor {:?} appears twice", tensor.name), {}, again);
}

// ---- reading values

namespace {

[[noreturn]] void wrong_type(std::string_view key, const GgufValue& value, const char* expected) {
  const bool array = value.type == GgufType::array;
  bad(fmt::format("metadata {:?} is {}{}", key, array ? "an array of " : "", name_of(value.element)), expected);
}

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// An integer of any width; a u64 beyond INT64_MAX counts as INT64_MAX, which no range allows.
std::optional<std::int64_t> integer_at(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::u8: return load<std::uint8_t>(at);
    case GgufType::i8: return load<std::int8_t>(at);
    case GgufType::u16: return load<std::uint16_t>(at);
    case GgufType::i16: return load<std::int16_t>(at);
    case GgufType::u32: return load<std::uint32_t>(at);
    case GgufType::i32: return load<std::int32_t>(at);
    case GgufType::u64: return static_cast<std::int64_t>(std::min<std::uint64_t>(load<std::uint64_t>(at), INT64_MAX));
    case GgufType::i64: return load<std::int64_t>(at);
    default: return std::nullopt;
  }
}

const GgufValue* find(const std::map<std::string_view, GgufValue>& values, std::string_view key) {
  const auto found = values.find(key);
  return found == values.end() ? nullptr : &found->second;
}

}  // namespace

std::optional<std::int64_t> Gguf::integer(std::string_view key, std::int64_t low, std::int64_t high) const {
  const GgufValue* value = find(values_, key);
  if (!value) return std::nullopt;
  const auto number = integer_at(value->type, value->bytes.data());
  if (!number) wrong_type(key, *value, "an integer");
  if (*number < low || *number > high) bad(fmt::format("metadata {:?} is {}", key, *number), fmt::format("{} to {}", low, high));
  return number;
}

std::optional<double> Gguf::number(std::string_view key) const {
  const GgufValue* value = find(values_, key);
  if (!value) return std::nullopt;
  double number = 0;
  if (value->type == GgufType::f32) number = load<float>(value->bytes.data());
  else if (value->type == GgufType::f64) number = load<double>(value->bytes.data());
  else if (const auto integer = integer_at(value->type, value->bytes.data())) number = static_cast<double>(*integer);
  else wrong_type(key, *value, "a number");
  if (!std::isfinite(number)) bad(fmt::format("metadata {:?} is {}", key, number), "a finite number");
  return number;
}

std::optional<bool> Gguf::boolean(std::string_view key) const {
  const GgufValue* value = find(values_, key);
  if (!value) return std::nullopt;
  if (value->type != GgufType::boolean) wrong_type(key, *value, "a bool");
  const auto byte = load<std::uint8_t>(value->bytes.data());
  if (byte > 1) bad(fmt::format("metadata {:?} is the byte {}", key, byte), "0 or 1");
  return byte == 1;
}

std::optional<std::string_view> Gguf::text(std::string_view key) const {
  const GgufValue* value = find(values_, key);
  if (!value) return std::nullopt;
  if (value->type != GgufType::string) wrong_type(key, *value, "a string");
  const auto text = Cursor(value->bytes).text(key);
  if (!is_valid_utf8(text)) bad(fmt::format("metadata {:?} is not UTF-8", key), {}, again);
  return text;
}

std::optional<std::vector<std::string>> Gguf::texts(std::string_view key) const {
  const GgufValue* value = find(values_, key);
  if (!value) return std::nullopt;
  if (value->type != GgufType::array || value->element != GgufType::string) wrong_type(key, *value, "an array of strings");
  std::vector<std::string> texts;
  texts.reserve(value->count);
  Cursor in(value->bytes);
  while (texts.size() < value->count) {
    const auto text = in.text(key);
    if (!is_valid_utf8(text)) bad(fmt::format("element {} of metadata {:?} is not UTF-8", texts.size(), key), {}, again);
    texts.emplace_back(text);
  }
  return texts;
}

std::optional<std::vector<std::int64_t>> Gguf::integers(std::string_view key) const {
  const GgufValue* value = find(values_, key);
  if (!value) return std::nullopt;
  const bool fits = value->type == GgufType::array && value->element != GgufType::string && value->element != GgufType::array;
  std::vector<std::int64_t> integers;
  for (std::uint64_t i = 0; fits && i < value->count; ++i) {
    const auto integer = integer_at(value->element, value->bytes.data() + i * least_bytes(value->element));
    if (!integer) wrong_type(key, *value, "an array of integers");
    integers.push_back(*integer);
  }
  if (!fits) wrong_type(key, *value, "an array of integers");
  return integers;
}

}  // namespace lmkit
