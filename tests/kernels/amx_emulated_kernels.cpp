// SPDX-License-Identifier: Apache-2.0
//
// gemm's AMX kernels on emulated tiles.
#include "amx_emulation.hpp"

namespace lmkit::kernels::isa {
struct amx_emulated {};
}  // namespace lmkit::kernels::isa

#define LMKIT_TILES EmulatedTiles
#include "../../kernels/cpu/isa/gemm.cpp"
