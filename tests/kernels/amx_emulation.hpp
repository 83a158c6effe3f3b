// SPDX-License-Identifier: Apache-2.0
//
// kernels/cpu/isa/amx_tiles.hpp in plain C++, so that the kernel written for Intel's matrix registers is tested on every machine
// with AVX-512. What the processor would refuse (a shape that does not fit, a tile without one) ends the program.
#pragma once

#include "../../kernels/cpu/isa/amx_tiles.hpp"

#include <lmkit/base/half.hpp>

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace lmkit::kernels {
namespace {

class EmulatedTiles {
 public:
  explicit EmulatedTiles(const TileShapes& shapes) noexcept : shapes_(shapes) {
    require(shapes.palette == 1 && shapes.start_row == 0);
    for (int tile = 0; tile < 16; ++tile)
      require(tile < 8 ? shapes.rows[tile] <= 16 && shapes.row_bytes[tile] <= 64 : shapes.rows[tile] == 0 && shapes.row_bytes[tile] == 0);
  }

  template <int Tile>
  void zero() noexcept {
    require(shapes_.rows[Tile] > 0);
    std::memset(data_[Tile], 0, sizeof data_[Tile]);
  }
  template <int Tile>
  void load(const void* from, std::int64_t stride) noexcept {
    zero<Tile>();
    for (int row = 0; row < shapes_.rows[Tile]; ++row)
      std::memcpy(data_[Tile][row], static_cast<const char*>(from) + row * stride, shapes_.row_bytes[Tile]);
  }
  template <int Tile>
  void store(void* to, std::int64_t stride) noexcept {
    require(shapes_.rows[Tile] > 0);
    for (int row = 0; row < shapes_.rows[Tile]; ++row)
      std::memcpy(static_cast<char*>(to) + row * stride, data_[Tile][row], shapes_.row_bytes[Tile]);
  }
  template <int Sum, int A, int B>
  void multiply_add_bytes() noexcept {
    require_product<Sum, A, B>();
    for (int i = 0; i < shapes_.rows[Sum]; ++i)
      for (int j = 0; j < shapes_.row_bytes[Sum] / 4; ++j) {
        std::int32_t sum;
        std::memcpy(&sum, data_[Sum][i] + 4 * j, 4);
        for (int k = 0; k < shapes_.rows[B]; ++k)
          for (int l = 0; l < 4; ++l) sum += data_[A][i][4 * k + l] * data_[B][k][4 * j + l];
        std::memcpy(data_[Sum][i] + 4 * j, &sum, 4);
      }
  }

  template <int Sum, int A, int B>
  void multiply_add_bf16() noexcept {
    require_product<Sum, A, B>();
    for (int i = 0; i < shapes_.rows[Sum]; ++i)
      for (int j = 0; j < shapes_.row_bytes[Sum] / 4; ++j) {
        float sums[2] = {}, sum;
        for (int k = 0; k < shapes_.rows[B]; ++k)
          for (int l = 0; l < 2; ++l) sums[l] = flushed(sums[l] + bf16_at(data_[A][i] + 4 * k + 2 * l) * bf16_at(data_[B][k] + 4 * j + 2 * l));
        std::memcpy(&sum, data_[Sum][i] + 4 * j, 4);
        sum = flushed(flushed(sum) + flushed(sums[0] + sums[1]));
        std::memcpy(data_[Sum][i] + 4 * j, &sum, 4);
      }
  }

 private:
  static float flushed(float value) noexcept { return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value; }
  static float bf16_at(const std::int8_t* at) noexcept {
    BFloat16 value;
    std::memcpy(&value, at, sizeof value);
    return flushed(to_float(value));
  }

  template <int Sum, int A, int B>
  void require_product() const noexcept {
    static_assert(Sum != A && Sum != B && A != B);
    require(shapes_.rows[Sum] > 0 && shapes_.rows[Sum] == shapes_.rows[A] && shapes_.row_bytes[Sum] == shapes_.row_bytes[B] &&
            shapes_.row_bytes[A] == 4 * shapes_.rows[B]);
  }
  static void require(bool allowed) noexcept {
    if (!allowed) std::abort();
  }

  TileShapes shapes_;
  alignas(64) std::int8_t data_[8][16][64] = {};
};

}  // namespace
}  // namespace lmkit::kernels
