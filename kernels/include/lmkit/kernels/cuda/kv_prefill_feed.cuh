// SPDX-License-Identifier: Apache-2.0
//
// Pages to operands of a warpgroup's products (wgmma.cuh): the keys or values of a step of tokens become 16-bit floats in a
// slot of shared memory. 16-bit pages are copied asynchronously in pieces of 8 bytes. Codes of a foldable codec pass through
// registers and become scale * code + bias in half precision, whose rounding is less than a sixteenth of an 8-bit code's step.
//
//     slot = cores (wgmma.cuh) in the order (token / 8, dimension / 8)
//
// A core's row is a token in keys, a dimension in values. Eight bytes of a page's fragment (kv_tile.cuh) are dimensions
// 4i .. 4i+3 of token g or g+8 in keys, tokens 2i 2i+1 2i+8 2i+9 of a dimension in values; they stay together. So the 16 tokens of a
// tile lie in the order 0 1 8 9 2 3 10 11 4 …, keys as well as values (tile_token), and dimensions that a page pairs stay paired:
// 4i 4i+2 4i+1 4i+3 at 4 bits (prefill_query), 4i .. 4i+3 otherwise.
#pragma once

#include <lmkit/kernels/cuda/kv_fragment.cuh>
#include <lmkit/kernels/cuda/kv_prefill_chunks.cuh>

namespace lmkit::kernels::cuda {

enum KvPart { keys_part, values_part };

template <class Codec, int head_dim>
struct PrefillFeed {
  using Stored = KvTile<Codec, head_dim>;
  static constexpr bool served = Stored::plain || (Stored::folded && Stored::groups <= 2);

  static constexpr int warps = warpgroup_threads / warp_size;
  static constexpr int step_tokens = head_dim <= 128 ? 128 : 64;
  static constexpr int tiles = step_tokens / tile_tokens, warp_tiles = tiles / warps;
  static constexpr int depth = head_dim / 16;
  static constexpr int core_bytes = 128, token_cores_bytes = head_dim / 8 * core_bytes;  // of eight tokens
  static constexpr int slot_bytes = step_tokens * head_dim * 2;
  static constexpr int mean_pages = 8, pages = step_tokens / 64;  // whose means are brought at once; of a step, at most
  static constexpr int mean_steps = mean_pages / pages, mean_bytes = Stored::may_centre ? token_cores_bytes : 0;
  static constexpr int mean_places = SlotRing::slots / 2;

  // The token in the n-th eight columns of a step's scores that lane i of a row has first; the next one follows.
  __device__ __forceinline__ static constexpr int first_token(int n, int i) {
    return n / 2 * tile_tokens + n % 2 * 4 + i / 2 * 2 + i % 2 * 8;
  }

  // Dimensions 4i .. 4i+3 of a query, two words of 16-bit floats, in the order of keys.
  __device__ __forceinline__ static uint2 query(uint2 x) {
    if constexpr (Stored::bits() == 4) return make_uint2(__byte_perm(x.x, x.y, 0x5410), __byte_perm(x.x, x.y, 0x7632));
    return x;
  }

  // Of lane `lane`: where the cores of its words in fragment 0 of a tile are. Eight tokens (keys) or dimensions (values) take turns
  // in pieces: `row` is the row of the first.
  __device__ __forceinline__ static int piece(KvPart part, int row, int i) {
    return i / 2 * (part == keys_part ? core_bytes : token_cores_bytes) + row * 16 + i % 2 * 8;
  }

  // --- 16-bit pages ---------------------------------------------------------------------------------------------------------

  // valid: of the tile's tokens; those behind become 0, and nothing of them is read.
  template <KvPart part>
  __device__ __forceinline__ static void copy_tile(std::uint32_t target, const std::byte* tile, int valid, int lane) {
    const int i = lane / 2 % 4, w = lane % 2, g = lane / 8;  // of fragment rows g and g + 4
    int bytes[2] = {8, 8};
    if (valid < tile_tokens) {
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        if constexpr (part == keys_part) bytes[q] = 4 * q + g + 8 * w < valid ? 8 : 0;
        else bytes[q] = 2 * ((2 * i < valid) + (2 * i + 1 < valid) + (2 * i + 8 < valid) + (2 * i + 9 < valid));
      }
    }
    target += piece(part, part == keys_part ? g / 2 * 4 + w * 2 + g % 2 : 2 * g + w, i);
    const std::byte* source = tile + part * Stored::part_bytes + lane * 8;
#pragma unroll
    for (int k = 0; k < depth; ++k)
#pragma unroll
      for (int q = 0; q < 2; ++q)
        copy8_async(target + 2 * k * core_bytes + q * (part == keys_part ? token_cores_bytes : core_bytes), source + k * 512 + q * 256, bytes[q]);
  }

  // --- codes ----------------------------------------------------------------------------------------------------------------

  // A lane's words of a tile's keys or values as they lie in the page, with what their scales and biases are made of.
  template <KvPart part>
  struct Codes {
    static constexpr int entries = part == keys_part ? 1 : 2;  // tokens g, g + 8 or 2i, 2i + 8 and 2i + 1, 2i + 9
    std::uint32_t words[Stored::words];
    std::uint32_t scales[Stored::groups][entries][2];

    __device__ __forceinline__ void load(const std::byte* tile, int lane) {
      load_tile_words<Stored>(tile + part * Stored::part_bytes, lane, words);
#pragma unroll
      for (int r = 0; r < Stored::groups; ++r)
#pragma unroll
        for (int e = 0; e < entries; ++e) {
          const int g = part == keys_part ? lane / 4 : lane % 4 * 2 + e;
          const Words<Stored::scale_halves> entry = load_words<Stored::scale_halves>(tile + Stored::scale_place(g, r));
          scales[r][e][0] = entry.at[Stored::symmetric() ? 0 : part];
          scales[r][e][1] = entry.at[Stored::symmetric() ? 1 : 2 + part];
        }
    }

    __device__ __forceinline__ void store(std::byte* target, int valid, int lane) const {
      const int i = lane % 4, g = lane / 4;
      target += piece(part, part == keys_part ? g % 4 / 2 * 4 + g % 2 : g % 4 * 2, i) + g / 4 * (part == keys_part ? token_cores_bytes : core_bytes);
#pragma unroll
      for (int r = 0; r < Stored::groups; ++r) {
        std::uint32_t scale[2], bias[2];
        for (int w = 0; w < 2; ++w) {
          const std::uint32_t a = scales[r][0][w], b = scales[r][entries - 1][w];
          constexpr bool high = Stored::symmetric() && part == values_part;  // beside the scale of keys
          scale[w] = part == keys_part ? __byte_perm(a, a, 0x1010) : __byte_perm(a, b, high ? 0x7632 : 0x5410);
          bias[w] = part == keys_part ? __byte_perm(a, a, 0x3232) : __byte_perm(a, b, 0x7632);
          if (part == values_part && valid < tile_tokens) {
            const int token = 2 * i + 8 * w;
            const std::uint32_t mask = (token < valid ? 0xffffu : 0u) | (token + 1 < valid ? 0xffff0000u : 0u);
            scale[w] &= mask, bias[w] &= mask;
          }
        }
#pragma unroll
        for (int k = r * depth / Stored::groups; k < (r + 1) * depth / Stored::groups; ++k) {
          const Fragment c = codes(words + k * Stored::fragment_words);
          // keys: a0 a2 are token g's, a1 a3 token g + 8's; values: a0 a1 are those of tokens 2i 2i+1, of two dimensions
          constexpr int second = part == keys_part ? 1 : 0;
          const uint2 low = make_uint2(value(c.a0, scale[0], bias[0]), value(c.a2, scale[1 - second], bias[1 - second]));
          const uint2 high = make_uint2(value(c.a1, scale[second], bias[second]), value(c.a3, scale[1], bias[1]));
          *reinterpret_cast<uint2*>(target + 2 * k * core_bytes) = low;
          *reinterpret_cast<uint2*>(target + 2 * k * core_bytes + (part == keys_part ? 32 : 16)) = high;
        }
      }
    }

   private:
    // Codes, less the one that stands for 0, as halves. An exponent over a code reads 1024 + c, or 1024 + 16 c.
    __device__ __forceinline__ static Fragment codes(const std::uint32_t* word) {
      constexpr float zero = Unpack<Stored>::zero;
      if constexpr (Stored::bits() == 4) {
        const auto low = [](std::uint32_t x) { return bits_of(__hadd2(halves(x & 0x000f000fu | 0x64006400u), __float2half2_rn(-1024.f - zero))); };
        const auto high = [](std::uint32_t x) {
          return bits_of(__hfma2(halves(x & 0x00f000f0u | 0x64006400u), __float2half2_rn(1.f / 16), __float2half2_rn(-64.f - zero)));
        };
        const std::uint32_t x = word[0], y = x >> 8;
        if constexpr (part == keys_part) return {low(x), low(y), high(x), high(y)};
        else return {low(x), high(x), low(y), high(y)};
      } else {
        const auto two = [](std::uint32_t x, unsigned select) {
          return bits_of(__hadd2(halves(__byte_perm(x, 0x64646464u, select)), __float2half2_rn(-1024.f - zero)));
        };
        return {two(word[0], 0x4140), two(word[1], 0x4140), two(word[0], 0x4342), two(word[1], 0x4342)};
      }
    }
    __device__ __forceinline__ static __half2 halves(std::uint32_t x) { return *reinterpret_cast<__half2*>(&x); }
    __device__ __forceinline__ static std::uint32_t value(std::uint32_t code, std::uint32_t scale, std::uint32_t bias) {
      if constexpr (Stored::symmetric()) return bits_of(__hmul2(halves(code), halves(scale)));
      else return bits_of(__hfma2(halves(code), halves(scale), halves(bias)));
    }
  };

  // --- means of centred keys ------------------------------------------------------------------------------------------------

  // Means lie in cores as eight keys do. Piece `n` of (mean_pages, head_dim / 8): 16 bytes of a mean as pages hold it, whose odd
  // dimensions are 16 times as large.
  static constexpr int mean_pieces = mean_pages * head_dim / 8;
  __device__ __forceinline__ static void store_mean(std::byte* target, int n, uint4 mean) {
    const auto smaller = [](std::uint32_t x) {
      const float2 y = unpack_half2(x);
      return pack2<__half>(y.x * (1.f / 16), y.y * (1.f / 16));
    };
    mean.y = smaller(mean.y), mean.w = smaller(mean.w);
    *reinterpret_cast<uint4*>(target + n % (head_dim / 8) * core_bytes + n / (head_dim / 8) * 16) = mean;
  }
};

// A warpgroup that brings chunks' keys and values to the slots. A warp has two of a step's eight tiles, or one of four.
template <class Codec, int head_dim>
class PrefillFeeder {
  using Feed = PrefillFeed<Codec, head_dim>;
  using Stored = typename Feed::Stored;

 public:
  // slots: in shared memory, the places of means behind them
  __device__ __forceinline__ PrefillFeeder(const KvView& view, const SlotRing& ring, std::byte* slots) : view_(view), ring_(ring), slots_(slots) {}

  __device__ __forceinline__ void feed(const PrefillChunk& chunk) {
    table_ = view_.block_tables + chunk.sequence * view_.block_table_stride;
    last_page_ = (chunk.length - 1) / view_.block_tokens;
    const auto block_of = [&](int step) { return table_[min((step * Feed::step_tokens + own_token()) / view_.block_tokens, last_page_)]; };
    int block = block_of(chunk.begin), next = block_of(chunk.begin + 1);  // ids are fetched steps before they are needed
    bring<keys_part>(chunk, chunk.begin, block, uses_);
#pragma unroll 1
    for (int step = chunk.begin; step < chunk.steps; ++step, uses_ += 2) {
      const int after = block_of(step + 2);
      if (step + 1 < chunk.steps) bring<keys_part>(chunk, step + 1, next, uses_ + 2);  // wanted before this step's values
      bring<values_part>(chunk, step, block, uses_ + 1);
      block = next, next = after;
    }
  }

  __device__ __forceinline__ void finish() { show<0>(); }

 private:
  // The step-th keys or values for use n of the slots; block: the one that holds this warp's tokens.
  template <KvPart part>
  __device__ __forceinline__ void bring(const PrefillChunk& chunk, int step, int block, int n) {
    const int token = step * Feed::step_tokens + own_token(), valid = chunk.length - token;
    const std::byte* source = view_.tile(block, chunk.kv_head, token % view_.block_tokens / tile_tokens, Stored::bytes);
    std::byte* target = slots_ + n % SlotRing::slots * Feed::slot_bytes + own_token() / 8 * Feed::token_cores_bytes;
    if constexpr (Stored::plain) {
      if (!ring_.is_empty(n)) {
        show<0>();
        ring_.wait_empty(n);
      }
      __syncwarp();
      const bool whole = valid >= Feed::warp_tiles * tile_tokens;
      if (whole) copy_tiles<part, true>(shared_address(target), source, valid);
      else copy_tiles<part, false>(shared_address(target), source, valid);
      commit_copies();
      show<1>();
      under_way_ = n;
    } else {
      typename Feed::template Codes<part> codes[Feed::warp_tiles];
#pragma unroll
      for (int t = 0; t < Feed::warp_tiles; ++t) codes[t].load(source + t * Stored::bytes, lane());
      ring_.wait_empty(n);
#pragma unroll
      for (int t = 0; t < Feed::warp_tiles; ++t) codes[t].store(target + t * 2 * Feed::token_cores_bytes, valid - t * tile_tokens, lane());
      if constexpr (Stored::may_centre && part == keys_part)
        if (view_.centred && (step - chunk.begin) % Feed::mean_steps == 0) bring_means(chunk, step);
      publish_to_products();
      barrier_arrive(ring_.full_of(n));
    }
  }

  template <KvPart part, bool whole>
  __device__ __forceinline__ static void copy_tiles(std::uint32_t target, const std::byte* source, int valid) {
#pragma unroll(whole ? Feed::warp_tiles : 1)
    for (int t = 0; t < Feed::warp_tiles; ++t)
      Feed::template copy_tile<part>(target + t * 2 * Feed::token_cores_bytes, source + t * Stored::bytes, whole ? tile_tokens : valid - t * tile_tokens, lane());
  }

  // What this thread copied last is shown to products, which only it can do; `newer` groups of copies were started since.
  template <int newer>
  __device__ __forceinline__ void show() {
    if (under_way_ < 0) return;
    wait_copies<newer>();
    publish_to_products();
    barrier_arrive(ring_.full_of(under_way_));
    under_way_ = -1;
  }

  // The means that pages are stored without, of eight times 64 tokens from a step on; a first page's keys are stored as they are. The
  // mean of a page that no row sees lies in a block that may be somebody else's by now.
  // They lie in as many places in turn as steps are under way.
  __device__ __forceinline__ void bring_means(const PrefillChunk& chunk, int step) {
    std::byte* target = slots_ + SlotRing::slots * Feed::slot_bytes + eights_++ % Feed::mean_places * Feed::mean_bytes;
    for (int n = threadIdx.x % warpgroup_threads; n < Feed::mean_pieces; n += warpgroup_threads) {
      const int page = (step * Feed::step_tokens + n / (head_dim / 8) * 64) / view_.block_tokens;
      uint4 mean = make_uint4(0, 0, 0, 0);
      if (page > 0 && page <= last_page_ && page >= chunk.oldest / view_.block_tokens)
        mean = *reinterpret_cast<const uint4*>(view_.mean(table_[page - 1], chunk.kv_head, Stored::mean_bytes) + n % (head_dim / 8) * 16);
      Feed::store_mean(target, n, mean);
    }
  }

  __device__ __forceinline__ static int lane() { return threadIdx.x % warp_size; }
  // This warp's first in a step.
  __device__ __forceinline__ static int own_token() { return threadIdx.x / warp_size % Feed::warps * Feed::warp_tiles * tile_tokens; }

  const KvView& view_;
  const SlotRing& ring_;
  std::byte* const slots_;
  const std::int32_t* table_ = nullptr;  // of the chunk's sequence
  int last_page_ = 0;
  int uses_ = 0, eights_ = 0;  // of slots, and of places of means, so far
  int under_way_ = -1;         // the use that copies were started for and not shown yet
};

}  // namespace lmkit::kernels::cuda
