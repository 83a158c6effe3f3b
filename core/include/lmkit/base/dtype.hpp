// SPDX-License-Identifier: Apache-2.0
//
// Element types of dense arrays (Dtype) and storage formats of weight matrices (WeightFormat).
//
// Quantised formats follow the GGUF specification (ggml/docs/gguf.md): a row is a run of blocks of 32 values,
//   Q8_0: half d, int8 q[32]            value = d * q
//   Q4_0: half d, 16 bytes of nibbles   value = d * (q - 8)
//   Q4_1: half d, half m, 16 bytes      value = d * q + m
// with value i of a block in the low nibble of byte i and value i + 16 in its high nibble.
#pragma once

#include <lmkit/abi/plugin.h>

#include <cstdint>

namespace lmkit {

enum class Dtype : std::int32_t { f32 = LMKIT_F32, f16 = LMKIT_F16, bf16 = LMKIT_BF16, i32 = LMKIT_I32, u8 = LMKIT_U8 };

constexpr int size_of(Dtype type) noexcept {
  switch (type) {
    case Dtype::f32:
    case Dtype::i32: return 4;
    case Dtype::f16:
    case Dtype::bf16: return 2;
    case Dtype::u8: return 1;
  }
  return 0;
}

enum class WeightFormat : std::uint8_t { f32, f16, bf16, q8_0, q4_0, q4_1 };

struct WeightBlock {
  const char* name;
  int values;  // in one block
  int bytes;   // of one block
};

constexpr WeightBlock block_of(WeightFormat format) noexcept {
  switch (format) {
    case WeightFormat::f32: return {"F32", 1, 4};
    case WeightFormat::f16: return {"F16", 1, 2};
    case WeightFormat::bf16: return {"BF16", 1, 2};
    case WeightFormat::q8_0: return {"Q8_0", 32, 34};
    case WeightFormat::q4_0: return {"Q4_0", 32, 18};
    case WeightFormat::q4_1: return {"Q4_1", 32, 20};
  }
  return {"", 1, 0};
}

}  // namespace lmkit
