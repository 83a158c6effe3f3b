// SPDX-License-Identifier: Apache-2.0
//
// Stream: where work runs in order. On CUDA a CUstream; on the CPU the threads of a TaskPool, and work is done when
// the call returns. A plain pair of pointers, so that plugins and core use the same kernels.
#pragma once

#include <lmkit/abi/plugin.h>

#include <cstdint>
#include <type_traits>

namespace lmkit {

struct Stream {
  lmkit_stream* handle = nullptr;
  const lmkit_host* host = nullptr;

  // Threads of a CPU stream.
  int workers() const noexcept { return host->workers(handle); }

  // Runs body(index, worker) for index in [0, count) and returns when all are done. body must not throw, nor call
  // parallel_for. No two bodies that run at the same time have the same worker.
  template <class Body>
  void parallel_for(std::int32_t count, Body&& body) const noexcept {
    using Plain = std::remove_reference_t<Body>;
    host->parallel_for(
        handle, count,
        [](void* context, std::int32_t index, std::int32_t worker) { (*static_cast<Plain*>(context))(index, worker); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }
};

}  // namespace lmkit
