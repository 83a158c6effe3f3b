// SPDX-License-Identifier: Apache-2.0
//
// DeviceKv: a KvBackend with two halves, of which the shape's device picks one when it is made.
#pragma once

#include <lmkit/concepts/kv_backend.hpp>
#include <lmkit/concepts/to_table.hpp>

#include <cstdint>
#include <utility>
#include <variant>

namespace lmkit::kernels::cuda {

template <KvBackend Cpu, KvBackend Cuda>
class DeviceKv {
 public:
  // Throws Error as the half does.
  DeviceKv(const KvShape& shape, Settings settings)
      : half_(shape.device == LMKIT_CUDA ? Half(make_from_settings<Cuda>(settings, shape)) : Half(make_from_settings<Cpu>(settings, shape))) {}

  std::int64_t block_bytes() const noexcept { return on_half([](const auto& kv) { return kv.block_bytes(); }); }
  std::int64_t workspace_bytes(const KvLimits& limits) const noexcept {
    return on_half([&](const auto& kv) { return kv.workspace_bytes(limits); });
  }
  Status append(const KvAppend& args, Stream stream) noexcept {
    return on_half([&](auto& kv) { return kv.append(args, stream); });
  }
  Status attend(const KvAttend& args, Stream stream) noexcept {
    return on_half([&](auto& kv) { return kv.attend(args, stream); });
  }
  Status copy_blocks(const KvCopy& args, Stream stream) noexcept {
    return on_half([&](auto& kv) { return kv.copy_blocks(args, stream); });
  }

 private:
  using Half = std::variant<Cpu, Cuda>;

  template <class Call>
  auto on_half(Call&& call) const noexcept {
    return half_.index() == 0 ? call(*std::get_if<0>(&half_)) : call(*std::get_if<1>(&half_));
  }
  template <class Call>
  auto on_half(Call&& call) noexcept {
    return half_.index() == 0 ? call(*std::get_if<0>(&half_)) : call(*std::get_if<1>(&half_));
  }

  Half half_;
};

}  // namespace lmkit::kernels::cuda
