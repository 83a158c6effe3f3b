// SPDX-License-Identifier: Apache-2.0
//
// Intel's matrix registers (AMX-TILE, AMX-INT8, AMX-BF16): eight tiles of up to 16 rows of 64 bytes, of a shape that each thread sets
// before it uses them. Written as assembly, since g++ 12's _tile_loadd does not say that it reads memory and its
// _tile_loadconfig not that it reads all 64 bytes. The process must have been allowed to use them (cpu_isa.cpp).
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
#pragma once

#include <cstdint>

namespace lmkit::kernels {
namespace {

struct TileShapes {
  std::uint8_t palette = 1, start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

struct AmxTiles {
  explicit AmxTiles(const TileShapes& shapes) noexcept { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
  ~AmxTiles() { asm volatile("tilerelease"); }  // so that a thread switch need not save 8 KiB
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  template <int Tile>
  void zero() noexcept {
    asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
  }
  template <int Tile>
  void load(const void* from, std::int64_t stride) noexcept {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(Tile) : "memory");
  }
  template <int Tile>
  void store(void* to, std::int64_t stride) noexcept {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(Tile) : "memory");
  }
  // sum[i][j] += a[i][4 k + l] * b[k][4 j + l] over k and l: signed bytes, 32-bit sums
  template <int Sum, int A, int B>
  void multiply_add_bytes() noexcept {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
  }
  // sum[i][j] += a[i][2 k + l] * b[k][2 j + l]: bf16 to floats; l = 0 and l = 1 are summed apart over k, then together, then to sum.
  template <int Sum, int A, int B>
  void multiply_add_bf16() noexcept {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
  }
};

}  // namespace
}  // namespace lmkit::kernels
