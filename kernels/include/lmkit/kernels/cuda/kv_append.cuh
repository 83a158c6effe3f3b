// SPDX-License-Identifier: Apache-2.0
//
// append: rotates q and k by position, optionally turns q, k and v by a Hadamard matrix and centres k, encodes k and v and
// writes them to their pages, in one launch. Moves (2 query_heads + 2 kv_heads) head_dim activations and the page bytes a token.
//
// A warp takes a row, a head of q, k or v of one token, through all of it in its registers. A group of values is encoded
// by one lane, because a codec sees whole groups, or by several where WarpEncoder knows how. Decodes have a warp for every row
// (append_kernel). In chunks (append_chunks_kernel) a warp encodes several rows at once, and a tile that a chunk fills is put together in
// shared memory and written in pieces of 16 bytes.
//
// Centred keys need the whole mean of the block before. A sequence's only new token finds it in the page, and joins its own
// block's mean. Of chunks a launch before this one, mean_kernel, brings the means of all their blocks up to date; it reads
// the keys once more.
#pragma once

#include <lmkit/kernels/cuda/affine_warp.cuh>
#include <lmkit/kernels/cuda/kv_centre.cuh>
#include <lmkit/kernels/cuda/kv_view.cuh>
#include <lmkit/kernels/cuda/warp_row.cuh>

namespace lmkit::kernels::cuda {

struct AppendParams {
  KvView view;
  std::uint16_t* q;        // (tokens, query_heads, head_dim)
  const std::uint16_t* k;  // (tokens, kv_heads, head_dim)
  const std::uint16_t* v;
  std::int64_t q_stride, kv_stride;
  std::int32_t rope_pairs, rotary_dim;
  const float2* rope_table;  // (max_context, rotary_dim / 2)
  std::int32_t tokens;
  std::uint32_t* arrivals;   // attend's counters: (sequences, counters_each)
  std::int32_t counters_each;
};

inline constexpr int append_warps = 8;   // of a block
inline constexpr int chunk_queries = 4;  // heads whose rows of tile_tokens tokens are a block's, in chunks
inline constexpr int mean_rows = 16;     // keys that mean_kernel turns at once
inline constexpr int mean_stretch = 64;  // tokens of the step whose blocks' means a block of mean_kernel's threads takes

// Of a position. near: as WarpRope wants it
template <int head_dim>
__device__ __forceinline__ WarpRope<head_dim> rope_of(const AppendParams& p, int position, float2* near, int lane) {
  return {p.rope_pairs, p.rotary_dim, p.rope_table + static_cast<std::int64_t>(position) * (p.rotary_dim / 2), near, lane};
}

__device__ __forceinline__ int position_of(const KvView& view, int token, int sequence) {
  return view.kv_lengths[sequence] - view.query_starts[sequence + 1] + token;
}

// Encodes rows by groups, `count` of them at once; x: (count, head_dim), packed: (count, groups) in shared memory.
template <class Codec, int head_dim, int count>
__device__ __forceinline__ void encode_rows(const float (*x)[head_dim], typename Codec::Packed (*packed)[head_dim / Codec::group], int lane) {
  constexpr int groups = head_dim / Codec::group, lanes = warp_size / count;
  if constexpr (WarpEncoder<Codec, lanes>::exists) {
    const int n = lane / lanes;
    for (int g = 0; g < groups; ++g) WarpEncoder<Codec, lanes>{}.encode(x[n] + g * Codec::group, packed[n][g], lane % lanes);
  } else {
    for (int g = lane; g < count * groups; g += warp_size) {
      Vec<float, Codec::group> values;
#pragma unroll
      for (int d = 0; d < Codec::group; ++d) values[d] = x[0][g * Codec::group + d];
      packed[0][g] = Codec{}.encode(values);
    }
  }
  __syncwarp();
}

// A condition that is the same in all lanes, so that the compiler knows too: shuffles under it cost no more than elsewhere.
__device__ __forceinline__ bool warp_uniform(bool condition) { return __any_sync(full_warp, condition); }

// A tile in a page, or one that is put together in shared memory, whose pieces of 16 bytes are permuted so that lanes write to different banks.
struct TileTarget {
  std::byte* bytes;
  bool in_shared;
  static constexpr int line = 128;  // of bytes, permuted by itself
  __device__ __forceinline__ static int permuted(int offset) { return offset ^ (offset / line % 8) * 16; }
  __device__ __forceinline__ std::byte* at(int offset) const { return bytes + (in_shared ? permuted(offset) : offset); }
};

// Writes a row to token t of a tile; part 0: keys, 1: values.
template <class Tile, int head_dim>
__device__ __forceinline__ void write_plain(const TileTarget& target, int part, int t, const WarpRow<head_dim>& row, bool is_bf16, int lane) {
  using Row = WarpRow<head_dim>;
  std::uint32_t low[Row::fours], high[Row::fours];  // two dimensions each
#pragma unroll
  for (int n = 0; n < Row::fours; ++n) low[n] = store2(row.at[n].x, row.at[n].y, is_bf16), high[n] = store2(row.at[n].z, row.at[n].w, is_bf16);
  if (warp_uniform(part == 0)) {
    static_assert(Tile::run == 4);  // both are neighbours
    Row::each_four(lane, [&](int n, int four) { *reinterpret_cast<uint2*>(target.at(Tile::key_unit(t, 4 * four))) = make_uint2(low[n], high[n]); });
    return;
  }
  // neighbours in a warp write neighbours in a page
#pragma unroll
  for (int two = 0; two < head_dim / 2; two += warp_size) {
    const int n = two / 2 / warp_size, from = (two + lane) / 2 % warp_size;
    const std::uint32_t a = __shfl_sync(full_warp, low[n], from), b = __shfl_sync(full_warp, high[n], from), pair = lane % 2 ? b : a;
    if (const int u = 2 * (two + lane); u < head_dim) {
      *reinterpret_cast<std::uint16_t*>(target.at(Tile::value_unit(t, u))) = static_cast<std::uint16_t>(pair);
      *reinterpret_cast<std::uint16_t*>(target.at(Tile::value_unit(t, u + 1))) = static_cast<std::uint16_t>(pair >> 16);
    }
  }
}
template <class Codec, int head_dim>
__device__ __forceinline__ void write_coded(const TileTarget& target, int part, int t, const typename Codec::Packed* packed, int lane) {
  using Tile = KvTile<Codec, head_dim>;
  if constexpr (Tile::folded) {
    constexpr int group_bytes = Codec::group * Tile::bits() / 8;
    for (int u = lane; u < Tile::units; u += warp_size)
      *target.at(part ? Tile::value_unit(t, u) : Tile::key_unit(t, u)) = static_cast<std::byte>(packed[u / group_bytes].codes[u % group_bytes]);
    for (int g = lane; g < Tile::groups; g += warp_size) {
      auto* scale = reinterpret_cast<std::uint16_t*>(target.at(Tile::scale_place(t, g) + part * Tile::scale_halves));
      scale[0] = packed[g].scale.bits;
      if constexpr (!Tile::symmetric()) scale[1] = packed[g].bias.bits;
    }
  } else {
    constexpr int packed_bytes = Tile::groups * static_cast<int>(sizeof(typename Codec::Packed));
    const auto* bytes = reinterpret_cast<const std::byte*>(packed);
    for (int b = lane; b < packed_bytes; b += warp_size) *target.at(Tile::packed_place(part, t, 0) + b) = bytes[b];
  }
}

// What a key needs of the means of its block and of the block before, fetched before the key itself.
template <int head_dim>
struct KeyMeans {
  using Mean = Centre<head_dim>;
  static constexpr int share = WarpRow<head_dim>::fours;
  std::byte* strip;
  bool joins;  // the key joins its block's mean here
  int slot;
  uint2 own[share], before[share];

  __device__ __forceinline__ void load(const KvView& view, int sequence, int head, int position, bool joins_here, int lane) {
    joins = joins_here;
    const int index = position / view.block_tokens;
    slot = position % view.block_tokens;
    strip = view.mean(view.block(sequence, index), head, Mean::bytes);
    const std::byte* other = index > 0 ? view.mean(view.block(sequence, index - 1), head, Mean::bytes) : nullptr;
#pragma unroll
    for (int n = 0; n < share; ++n) {
      const int at = 8 * (lane + n * warp_size);
      own[n] = before[n] = make_uint2(0, 0);
      if (at >= Mean::copied) continue;
      if (joins && slot > 0) own[n] = *reinterpret_cast<const uint2*>(strip + at);
      if (other) before[n] = *reinterpret_cast<const uint2*>(other + at);
    }
  }

  // A turned key.
  __device__ __forceinline__ void centre(WarpRow<head_dim>& row, int lane) const {
    WarpRow<head_dim>::each_four(lane, [&](int n, int four) {
      float4& key = row.at[n];
      float4 mean = Mean::unpack4(own[n]);
      if (joins) {
        mean.x = Mean::next(mean.x, key.x, slot), mean.y = Mean::next(mean.y, key.y, slot);
        mean.z = Mean::next(mean.z, key.z, slot), mean.w = Mean::next(mean.w, key.w, slot);
        reinterpret_cast<uint2*>(strip)[four] = Mean::pack4(mean);
      }
      const float4 other = Mean::unpack4(before[n]);
      key.x -= other.x, key.y -= other.y, key.z -= other.z, key.w -= other.w;
    });
  }
};

// Where a token of a head lies.
struct TokenPlace {
  std::byte* tile;
  int token;  // of the tile's
};
template <class Tile>
__device__ __forceinline__ TokenPlace place_of(const KvView& view, int sequence, int head, int position) {
  const int index = position / view.block_tokens, slot = position - index * view.block_tokens;
  return {view.tile(view.block(sequence, index), head, slot / tile_tokens, Tile::bytes), slot % tile_tokens};
}

// A warp's shared memory.
template <class Codec, int head_dim, int count>
struct AppendRoom {
  static constexpr bool encodes = !KvTile<Codec, head_dim>::plain;
  static constexpr int rows = encodes ? count : 1;
  alignas(16) float values[rows][head_dim];
  alignas(16) float2 near[head_dim / 2];
  typename Codec::Packed codes[rows][encodes ? head_dim / Codec::group : 1];
};

// Writes a row to token t of a tile.
template <class Codec, int head_dim, int count>
__device__ __forceinline__ void write_row(const TileTarget& target, int part, int t, const WarpRow<head_dim>& x, AppendRoom<Codec, head_dim, count>& room, bool is_bf16,
                                          int lane) {
  if constexpr (AppendRoom<Codec, head_dim, count>::encodes) {
    x.store(room.values[0], lane);
    __syncwarp();
    encode_rows<Codec, head_dim, 1>(room.values, room.codes, lane);
    write_coded<Codec, head_dim>(target, part, t, room.codes[0], lane);
    __syncwarp();
  } else {
    write_plain<KvTile<Codec, head_dim>>(target, part, t, x, is_bf16, lane);
  }
}

// Decodes. Grid: (tokens, rows / append_warps). Six blocks a multiprocessor: a step of 128 sequences of 48 rows is one wave of an H200.
template <class Codec, int head_dim>
__global__ void __launch_bounds__(append_warps* warp_size, 6) append_kernel(const __grid_constant__ AppendParams p) {
  using Tile = KvTile<Codec, head_dim>;
  __shared__ AppendRoom<Codec, head_dim, 1> rooms[append_warps];
  const KvView& view = p.view;
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  AppendRoom<Codec, head_dim, 1>& room = rooms[warp];
  const int row = blockIdx.y * append_warps + warp;
  const int first_k = view.query_heads, first_v = first_k + view.kv_heads;

  start_dependents();
  // While the launch before ends: the step's arrays, and the angles of the token's position.
  int token = blockIdx.x, end = token + 1;
  const int sequence = view.token_sequence[token];
  int position = position_of(view, token, sequence);
  const bool is_query = row < first_k;
  const int part = row >= first_v, head = is_query ? row : row - (part ? first_v : first_k);
  TokenPlace place{};
  if (!is_query) place = place_of<Tile>(view, sequence, head, position);
  WarpRope<head_dim> rope = rope_of<head_dim>(p, position, room.near, lane);
  wait_for_prerequisites();
  if (blockIdx.y == 0)
    for (int n = threadIdx.x; n < p.counters_each; n += blockDim.x) p.arrivals[sequence * p.counters_each + n] = 0;
  if (row >= first_v + view.kv_heads) return;

  const std::uint16_t* source = (is_query ? p.q : part ? p.v : p.k) + head * head_dim;
  const std::int64_t stride = is_query ? p.q_stride : p.kv_stride;
  const bool centred = Tile::may_centre && view.centred && !is_query && part == 0;
  if (centred && view.new_tokens(sequence) > 1) {  // a chunk beside sequences without a token: its first token's warp takes it all, in order
    if (token != view.query_starts[sequence]) return;
    end = view.query_starts[sequence + 1];
  }
#pragma unroll 1
  for (;;) {
    KeyMeans<head_dim> means;
    if (centred) means.load(view, sequence, head, position, true, lane);
    WarpRow<head_dim> x;
    x.load(source + token * stride, view.is_bf16, lane);
    if (warp_uniform(part == 0)) rope.rotate(x, room.values[0], lane);
    if (view.hadamard) x.hadamard(lane);
    if (is_query) return x.store(p.q + token * stride + head * head_dim, view.is_bf16, lane);
    if (centred) means.centre(x, lane);
    write_row<Codec, head_dim>({place.tile, false}, part, place.token, x, room, view.is_bf16, lane);
    if (!Tile::may_centre || warp_uniform(++token == end)) return;
    place = place_of<Tile>(view, sequence, head, ++position);
    rope = rope_of<head_dim>(p, position, room.near, lane);
  }
}

// Chunks, and decodes beside them; means of centred keys are ready. Grid: (tokens / tile_tokens, kv_heads + query_heads / chunk_queries): a
// block has tile_tokens tokens of chunk_queries query heads or of a key/value head. Of that it takes the tile which a chunk fills from one of these
// tokens on, and those of these tokens whose tile no chunk fills, one by one.
template <class Codec, int head_dim>
struct ChunkAppend {
  using Tile = KvTile<Codec, head_dim>;
  static constexpr int image_bytes = Tile::scales_at + (Tile::folded ? 8 * Tile::groups * Tile::scale_bytes : 0);  // of a tile, without what aligns it
  static constexpr int part_warps = append_warps / 2;                                                              // half of them take keys, half values
  static constexpr int rows_each = tile_tokens / part_warps, at_once = head_dim > 128 ? rows_each / 2 : rows_each;
  static_assert(image_bytes % 16 == 0);

  using Room = AppendRoom<Codec, head_dim, at_once>;
  struct Shared {
    Room rooms[append_warps];
    alignas(16) std::byte image[(image_bytes + TileTarget::line - 1) / TileTarget::line * TileTarget::line];
  };

  const AppendParams& p;
  Shared& shared;
  int lane, warp, first_token, tokens;
  int sequence = 0, position = 0;  // of the lane's token

  __device__ __forceinline__ ChunkAppend(const AppendParams& p, Shared& shared, int thread, int first_token)
      : p(p), shared(shared), lane(thread % warp_size), warp(thread / warp_size), first_token(first_token), tokens(min(tile_tokens, p.tokens - first_token)) {
    if (lane >= tokens) return;
    sequence = p.view.token_sequence[first_token + lane];
    position = position_of(p.view, first_token + lane, sequence);
  }

  __device__ __forceinline__ Room& room() const { return shared.rooms[warp]; }
  __device__ __forceinline__ static int of_lane(int x, int lane) { return __shfl_sync(full_warp, x, lane); }

  __device__ __forceinline__ void queries(int first_head) const {
    const int heads = min(chunk_queries, p.view.query_heads - first_head);
#pragma unroll 1
    for (int t = warp; warp_uniform(t < tokens); t += append_warps) {
      std::uint16_t* const q = p.q + (first_token + t) * p.q_stride + first_head * head_dim;
      WarpRow<head_dim> rows[chunk_queries];
#pragma unroll
      for (int n = 0; n < chunk_queries; ++n)
        if (n < heads) rows[n].load(q + n * head_dim, p.view.is_bf16, lane);
      const auto rope = rope_of<head_dim>(p, of_lane(position, t), room().near, lane);
#pragma unroll
      for (int n = 0; n < chunk_queries; ++n) {
        if (n == heads) break;
        rope.rotate(rows[n], room().values[0], lane);
        if (p.view.hadamard) rows[n].hadamard(lane);
        rows[n].store(q + n * head_dim, p.view.is_bf16, lane);
      }
    }
  }

  __device__ __forceinline__ void keys_and_values(int head) const {
    const KvView& view = p.view;
    const int part = warp / part_warps, begin = first_token + lane - position % tile_tokens;  // of the token's tile
    const std::uint16_t* const source = (part ? p.v : p.k) + head * head_dim;
    const bool exists = lane < tokens;
    const bool fills = exists && begin >= view.query_starts[sequence] && begin + tile_tokens <= view.query_starts[sequence + 1];
#pragma unroll 1
    for (std::uint32_t rest = __ballot_sync(full_warp, exists && !fills) & 0x11111111u << warp % part_warps; warp_uniform(rest != 0); rest &= rest - 1) {
      const int n = __ffs(rest) - 1, s = of_lane(sequence, n), at = of_lane(position, n);
      const TokenPlace place = place_of<Tile>(view, s, head, at);
      WarpRow<head_dim> x;
      x.load(source + (first_token + n) * p.kv_stride, view.is_bf16, lane);
      turn(x, part, means_of(part, s, head, at, view.new_tokens(s) == 1), at);
      write_row<Codec, head_dim>({place.tile, false}, part, place.token, x, room(), view.is_bf16, lane);
    }
    const std::uint32_t filled = __ballot_sync(full_warp, fills && position % tile_tokens == 0);
    if (!filled) return;
    const int n = __ffs(filled) - 1;
    fill_tile(source + (first_token + n) * p.kv_stride, part, of_lane(sequence, n), head, of_lane(position, n));
  }

  // given: the first of tile_tokens keys or values
  __device__ __forceinline__ void fill_tile(const std::uint16_t* given, int part, int sequence, int head, int position) const {
    const TileTarget image{shared.image, true};
    const KeyMeans<head_dim> means = means_of(part, sequence, head, position, false);  // of a block that all of them are in
#pragma unroll 1
    for (int base = 0; base < rows_each; base += at_once) {
      const int first = warp % part_warps * rows_each + base;
      WarpRow<head_dim> rows[at_once];
#pragma unroll
      for (int n = 0; n < at_once; ++n) rows[n].load(given + (first + n) * p.kv_stride, p.view.is_bf16, lane);
      __syncwarp();
#pragma unroll
      for (int n = 0; n < at_once; ++n) {
        turn(rows[n], part, means, position + first + n);
        if constexpr (Tile::plain) write_plain<Tile>(image, part, first + n, rows[n], p.view.is_bf16, lane);
        else rows[n].store(room().values[n], lane);
      }
      if constexpr (!Tile::plain) {
        __syncwarp();
        encode_rows<Codec, head_dim, at_once>(room().values, room().codes, lane);
#pragma unroll 1
        for (int n = 0; n < at_once; ++n) write_coded<Codec, head_dim>(image, part, first + n, room().codes[n], lane);
      }
    }
    __syncthreads();
    auto* const tile = reinterpret_cast<uint4*>(place_of<Tile>(p.view, sequence, head, position).tile);
    for (int n = threadIdx.x; n < image_bytes / 16; n += blockDim.x) tile[n] = *reinterpret_cast<const uint4*>(shared.image + TileTarget::permuted(16 * n));
  }

  __device__ __forceinline__ bool is_centred(int part) const { return Tile::may_centre && p.view.centred && part == 0; }
  // What a key needs, where keys are centred. joins: it joins its block's mean
  __device__ __forceinline__ KeyMeans<head_dim> means_of(int part, int sequence, int head, int position, bool joins) const {
    KeyMeans<head_dim> means;
    if (is_centred(part)) means.load(p.view, sequence, head, position, joins, lane);
    return means;
  }
  __device__ __forceinline__ void turn(WarpRow<head_dim>& x, int part, const KeyMeans<head_dim>& means, int position) const {
    if (warp_uniform(part == 0)) rope_of<head_dim>(p, position, room().near, lane).rotate(x, room().values[Room::rows - 1], lane);
    if (p.view.hadamard) x.hadamard(lane);
    if (is_centred(part)) means.centre(x, lane);
  }
};

template <class Codec, int head_dim>
__global__ void __launch_bounds__(append_warps* warp_size, (head_dim > 128 ? 2 : 4)) append_chunks_kernel(const __grid_constant__ AppendParams p) {
  using Append = ChunkAppend<Codec, head_dim>;
  __shared__ __align__(16) typename Append::Shared shared;
  const int thread = threadIdx.x, head = blockIdx.y;
  start_dependents();
  const Append append(p, shared, thread, static_cast<int>(blockIdx.x) * tile_tokens);  // while the launch before ends
  wait_for_prerequisites();
  if (head >= p.view.kv_heads) return append.queries((head - p.view.kv_heads) * chunk_queries);
  if (head == 0)
    for (int n = thread; n < append.tokens * p.counters_each; n += blockDim.x)
      p.arrivals[p.view.token_sequence[append.first_token + n / p.counters_each] * p.counters_each + n % p.counters_each] = 0;
  append.keys_and_values(head);
}

// Brings the means of the blocks that chunks write to up to date. Grid: (step tokens / mean_stretch, kv_heads); a block of
// threads takes the runs of tokens of one block that begin in its stretch.
template <int head_dim>
__global__ void __launch_bounds__(mean_rows* warp_size) mean_kernel(const __grid_constant__ AppendParams p) {
  using Mean = Centre<head_dim>;
  constexpr int room = (head_dim > 128 ? 4096 : 8192) / head_dim;  // keys at a time
  __shared__ __align__(16) float keys[room][head_dim];
  __shared__ __align__(16) float2 near[mean_rows][head_dim / 2];
  __shared__ std::uint32_t opens[mean_stretch / warp_size];  // which tokens of the stretch open a run
  const KvView& view = p.view;
  const int thread = threadIdx.x, lane = thread % warp_size, warp = thread / warp_size, head = blockIdx.y, begin = blockIdx.x * mean_stretch;
  if (thread < mean_stretch) {
    const int token = begin + thread;
    bool open = false;
    if (token < p.tokens) {
      const int sequence = view.token_sequence[token];
      const bool first = token == view.query_starts[sequence] || position_of(view, token, sequence) % view.block_tokens == 0;
      open = first && view.new_tokens(sequence) > 1;
    }
    const std::uint32_t some = __ballot_sync(full_warp, open);
    if (lane == 0) opens[warp] = some;
  }
  __syncthreads();
  for (int part = 0; part < mean_stretch / warp_size; ++part)
    for (std::uint32_t rest = opens[part]; rest != 0; rest &= rest - 1) {
      const int first = begin + part * warp_size + __ffs(static_cast<int>(rest)) - 1;
      const int sequence = view.token_sequence[first], position = position_of(view, first, sequence), slot = position % view.block_tokens;
      const int count = min(view.query_starts[sequence + 1] - first, view.block_tokens - slot);
      std::byte* strip = view.mean(view.block(sequence, position / view.block_tokens), head, Mean::bytes);
      float mean = thread < head_dim && slot > 0 ? Mean::get(strip, thread) : 0.f;
      for (int base = 0; base < count; base += room) {
        const int now = min(room, count - base);
        for (int n = warp; n < now; n += mean_rows) {
          WarpRow<head_dim> key;
          key.load(p.k + (first + base + n) * p.kv_stride + head * head_dim, view.is_bf16, lane);
          rope_of<head_dim>(p, position + base + n, near[warp], lane).rotate(key, keys[n], lane);
          if (view.hadamard) key.hadamard(lane);
          key.store(keys[n], lane);
        }
        __syncthreads();
        if (thread < head_dim)
#pragma unroll 4
          for (int n = 0; n < now; ++n) mean = Mean::next(mean, keys[n][thread], slot + base + n);
        __syncthreads();
      }
      if (thread < head_dim) Mean::put(strip, thread, mean);
    }
}

}  // namespace lmkit::kernels::cuda
