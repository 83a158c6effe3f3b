// SPDX-License-Identifier: Apache-2.0
#include <lmkit/base/error.hpp>
#include <lmkit/model/model_config.hpp>

#include <fmt/format.h>

#include <cmath>

namespace lmkit {
namespace {

void check(bool good, std::string found, std::string expected) {
  if (!good) throw Error(ErrorKind::model, std::move(found), std::move(expected), "another file of this model");
}

void check_range(const char* what, int value, int low, int high) {
  check(value >= low && value <= high, fmt::format("{} {}", value, what), fmt::format("{} to {}", low, high));
}

}  // namespace

void check_config(const ModelConfig& c) {
  check_range("layers", c.layers, 1, limits::layers);
  check_range("hidden values", c.hidden, 1, limits::hidden);
  check_range("feed-forward values", c.ffn, 1, limits::hidden);
  check_range("query heads", c.query_heads, 1, limits::heads);
  check_range("key/value heads", c.kv_heads, 1, limits::heads);
  check_range("values per head", c.head_dim, 1, limits::head_dim);
  check_range("tokens in the vocabulary", c.vocabulary, 1, limits::vocabulary);
  check_range("tokens of context", c.max_context, 1, limits::context);
  check_range("tokens of attention window", c.window, 0, limits::context);
  check(c.query_heads % c.kv_heads == 0, fmt::format("{} query heads over {} key/value heads", c.query_heads, c.kv_heads),
        "a multiple of the key/value heads");
  check(c.rope.rotary_dim % 2 == 0 && c.rope.rotary_dim >= 0 && c.rope.rotary_dim <= c.head_dim,
        fmt::format("RoPE over {} of {} values per head", c.rope.rotary_dim, c.head_dim), "an even number, at most the head's values");
  check(std::isfinite(c.rms_eps) && c.rms_eps > 0.0f && c.rms_eps < 1.0f, fmt::format("an RMS norm epsilon of {}", c.rms_eps), "a number in (0, 1)");
  check(std::isfinite(c.rope.base) && c.rope.base >= 1.0f, fmt::format("a RoPE base of {}", c.rope.base), "at least 1");
  check(std::isfinite(c.rope.factor) && c.rope.factor >= 1.0f, fmt::format("a RoPE scaling factor of {}", c.rope.factor), "at least 1");
  check_range("tokens of original context", c.rope.original_context, 0, limits::context);
  check(c.rope.original_context == 0 || (c.rope.low_frequency_factor > 0.0f && c.rope.high_frequency_factor > c.rope.low_frequency_factor &&
                                         std::isfinite(c.rope.high_frequency_factor)),
        fmt::format("RoPE frequency factors {} and {}", c.rope.low_frequency_factor, c.rope.high_frequency_factor),
        "0 < low < high");
}

}  // namespace lmkit
