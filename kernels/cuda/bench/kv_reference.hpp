// SPDX-License-Identifier: Apache-2.0
//
// What the KV kernels must compute, in float64 and in the plainest way, and the page reader that makes it comparable:
// attention is checked against the values the pages really hold, append against what they should hold.
#pragma once

#include <lmkit/abi/kv.h>
#include <lmkit/base/half.hpp>
#include <lmkit/kernels/cuda/kv_tile.cuh>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

namespace lmkit::kernels::cuda {

inline double activation(std::uint16_t bits, bool is_bf16) { return is_bf16 ? to_float(BFloat16{bits}) : to_float(Half{bits}); }
inline std::uint16_t activation_bits(float x, bool is_bf16) { return is_bf16 ? to_bfloat16(x).bits : to_half(x).bits; }

// Token t of a tile: k and v (head_dim) as the codec decodes them.
template <class Codec, int head_dim>
void read_tile_token(const std::byte* tile, int t, float* k, float* v) {
  using Tile = KvTile<Codec, head_dim>;
  for (int part = 0; part < 2; ++part)
    for (int g = 0; g < Tile::groups; ++g) {
      typename Codec::Packed packed{};
      if constexpr (Tile::folded) {
        constexpr int bytes = Codec::group * Codec::bits / 8;
        for (int b = 0; b < bytes; ++b) {
          const int u = g * bytes + b;
          packed.codes[b] = static_cast<std::uint8_t>(tile[part ? Tile::value_unit(t, u) : Tile::key_unit(t, u)]);
        }
        const std::byte* scales = tile + Tile::scale_place(t, g) + part * Tile::scale_halves;
        std::memcpy(&packed.scale, scales, 2);
        if constexpr (!Tile::symmetric()) std::memcpy(&packed.bias, scales + 2, 2);
      } else if constexpr (Tile::plain) {
        for (int d = 0; d < Codec::group; ++d) {
          const int u = g * Codec::group + d;
          std::memcpy(&packed.values[d], tile + (part ? Tile::value_unit(t, u) : Tile::key_unit(t, u)), 2);
        }
      } else {
        std::memcpy(&packed, tile + Tile::packed_place(part, t, g), sizeof packed);
      }
      const auto values = Codec{}.decode(packed);
      std::copy_n(values.values, Codec::group, (part ? v : k) + g * Codec::group);
    }
}
using TokenReader = void (*)(const std::byte* tile, int t, float* k, float* v);

inline void read_mean(const std::byte* strip, int head_dim, float* mean) {
  using Strip = MeanStrip<256>;  // places do not depend on head_dim
  for (int d = 0; d < head_dim; ++d) {
    Half half;
    std::memcpy(&half, strip + Strip::place(d), 2);
    mean[d] = to_float(half) / Strip::gain(d);
  }
}

inline void reference_rope(double* x, double position, double base, int rotary_dim, int pairs) {
  for (int i = 0; i < rotary_dim / 2 && pairs != LMKIT_ROPE_NONE; ++i) {
    const double angle = position * std::pow(base, -2.0 * i / rotary_dim), c = std::cos(angle), s = std::sin(angle);
    double& a = x[pairs == LMKIT_ROPE_ADJACENT ? 2 * i : i];
    double& b = x[pairs == LMKIT_ROPE_ADJACENT ? 2 * i + 1 : i + rotary_dim / 2];
    const double a0 = a;
    a = a * c - b * s;
    b = a0 * s + b * c;
  }
}

// By the definition: entry (i, j) of a run is (-1)^popcount(i & j) / sqrt(run).
inline void reference_hadamard(double* x, int head_dim) {
  const int run = head_dim & -head_dim;
  std::vector<double> y(run);
  for (int at = 0; at < head_dim; at += run) {
    for (int i = 0; i < run; ++i) {
      y[i] = 0;
      for (int j = 0; j < run; ++j) y[i] += (__builtin_popcount(i & j) % 2 ? -1.0 : 1.0) * x[at + j];
    }
    for (int i = 0; i < run; ++i) x[at + i] = y[i] / std::sqrt(static_cast<double>(run));
  }
}

// One query over the keys and values (tokens, head_dim) of tokens [0, position]: out (head_dim).
inline void reference_attention(const double* q, const float* k, const float* v, int position, int head_dim, double scale, double soft_cap,
                                int window, double* out) {
  const int first = window > 0 ? std::max(0, position - window + 1) : 0;
  std::vector<double> p(position + 1);
  double largest = -INFINITY, sum = 0;
  for (int t = first; t <= position; ++t) {
    double sums[8] = {};  // eight additions under way; head_dim is a multiple of 8
    for (int d = 0; d < head_dim; ++d) sums[d % 8] += q[d] * k[static_cast<std::size_t>(t) * head_dim + d];
    const double s = scale * std::accumulate(sums, sums + 8, 0.0);
    p[t] = soft_cap > 0 ? soft_cap * std::tanh(s / soft_cap) : s;
    largest = std::max(largest, p[t]);
  }
  std::fill_n(out, head_dim, 0.0);
  for (int t = first; t <= position; ++t) {
    p[t] = std::exp(p[t] - largest);
    sum += p[t];
    for (int d = 0; d < head_dim; ++d) out[d] += p[t] * v[static_cast<std::size_t>(t) * head_dim + d];
  }
  for (int d = 0; d < head_dim; ++d) out[d] /= sum;
}

// |out - expected| / |expected|; NaN anywhere gives NaN
struct RelativeError {
  double difference = 0, norm = 0;
  void add(double out, double expected) {
    difference += (out - expected) * (out - expected);
    norm += expected * expected;
  }
  void add(const RelativeError& other) { difference += other.difference, norm += other.norm; }
  double value() const { return std::sqrt(difference / norm); }
};

}  // namespace lmkit::kernels::cuda
