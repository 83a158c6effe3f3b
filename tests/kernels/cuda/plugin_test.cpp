// SPDX-License-Identifier: Apache-2.0
//
// The CUDA halves of kv-int4, kv-int8 and the example's kv-nf4, called through the table of the shared object: the same bits as the templates.
#include "kv_run.hpp"

#include <examples/05_codec_plugin/normal_float4.hpp>
#include <lmkit/kernels/cuda/codec_kv.hpp>

#include <dlfcn.h>

#include <cstdlib>

using namespace lmkit;
using namespace lmkit::kernels;
using namespace lmkit::kernels::cuda;

namespace {

std::string reason;

const lmkit_host test_host = {sizeof(lmkit_host), LMKIT_ABI_MAJOR, LMKIT_ABI_MINOR, [](const char* text) { reason = text; }, nullptr, nullptr};

const lmkit_plugin* load(const std::string& id) {
  const char* folder = std::getenv("LMKIT_PLUGIN_PATH");
  const std::string path = folder ? folder + ("/" + id + ".so") : id == "kv-nf4" ? LMKIT_TEST_CODEC_PLUGIN : LMKIT_TEST_PLUGINS + ("/" + id + ".so");
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) FAIL(dlerror());
  return static_cast<const lmkit_plugin*>(dlsym(library, LMKIT_PLUGIN_SYMBOL));
}

const lmkit_kv* kv_table_of(const std::string& id) { return static_cast<const lmkit_kv*>(load(id)->extension(LMKIT_KV_EXTENSION)); }

}  // namespace

TEST_CASE("A plugin's table runs the kernels of its codec") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  struct Pair {
    const char* plugin;
    Case c;
    bool hadamard, centred;
    std::vector<lmkit_setting> settings;
  };
  const Case int4 = case_of<AffineCodec<4, 64, false>, 64>("int4", affine_kv_kernels<4, false>(), 0.14);
  const Pair pairs[] = {{"kv-int8", case_of<AffineCodec<8, 128, false>, 128>("int8", affine_kv_kernels<8, false>(), 0.012), false, false, {}},
                        {"kv-int8", case_of<AffineCodec<8, 64, true>, 64>("int8, scale only", affine_kv_kernels<8, true>(), 0.012), false, false, {{"zero-point", "false"}}},
                        {"kv-nf4", case_of<NormalFloat4, 64>("normal floats", codec_kv_kernels<NormalFloat4>(), 0.12), false, false, {}},
                        {"kv-int4", int4, true, true, {}},
                        {"kv-int4", int4, false, false, {{"rotation", "none"}, {"centre", "none"}}}};
  for (const Pair& pair : pairs) {
    const lmkit_kv* table = kv_table_of(pair.plugin);
    Run run(pair.c, {.hadamard = pair.hadamard, .centred = pair.centred}, {300, 70, 65}, 400, seed);
    const lmkit_kv_shape shape = kv_shape(run.rig.shape);
    void* self = nullptr;
    INFO(pair.plugin << ": " << reason);
    REQUIRE(table->create(&test_host, &shape, pair.settings.data(), static_cast<int>(pair.settings.size()), &self) == LMKIT_OK);
    CHECK(table->block_bytes(self) == run.rig.kv.block_bytes());
    const KvLimits limits{sizeof(KvLimits), 400, 3, 300, 0};
    CHECK(table->workspace_bytes(self, &limits) == run.rig.kv.workspace_bytes(limits));

    for (const std::vector<int>& counts : std::vector<std::vector<int>>{{200, 60, 1}, {1, 1, 63}}) {
      const auto before = run.rig.pool.download();
      run.append(counts);
      run.attend();
      run.check_judged();
      const auto pool = run.rig.pool.download();
      const auto q = run.q_device.download(), out = run.out_device.download();
      run.rig.pool.upload(before);
      run.q_device.upload(run.q_before);
      run.out_device.fill(0xff);
      const auto stream = Run::on(run.stream).handle;
      const KvAppend append = run.append_args();
      const KvAttend attend = run.attend_args();
      REQUIRE(table->append(self, &append, stream) == LMKIT_OK);
      REQUIRE(table->attend(self, &attend, stream) == LMKIT_OK);
      run.stream.wait();
      CHECK(run.rig.pool.download() == pool);
      CHECK(run.q_device.download() == q);
      CHECK(run.out_device.download() == out);
    }
    table->destroy(self);
  }
}

TEST_CASE("A plugin refuses a GPU shape with a reason, also where there is no GPU") {
  for (const char* id : {"kv-int4", "kv-int8"}) {
    const lmkit_kv* table = kv_table_of(id);
    RigShape shape;
    shape.head_dim = 72;
    const lmkit_kv_shape unsupported = kv_shape(shape);
    void* self = nullptr;
    reason.clear();
    CHECK(table->create(&test_host, &unsupported, nullptr, 0, &self) == LMKIT_INVALID_ARGUMENT);
    CHECK_THAT(reason, Catch::Contains("head_dim 72") && Catch::Contains("64, 80, 96, 128, 256"));
  }
}

TEST_CASE("Where there is no GPU the kernels say so") {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return;
  CHECK_THROWS_WITH(CudaKv(kv_shape({}), plain_kv_kernels()), Catch::Contains("the GPU cannot run this build's kernels"));
}
