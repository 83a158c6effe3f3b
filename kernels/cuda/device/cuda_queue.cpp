// SPDX-License-Identifier: Apache-2.0
#include "cuda_queue.hpp"

#include <algorithm>
#include <cstring>

namespace lmkit::kernels::cuda {

CudaQueue::CudaQueue(int gpu, const lmkit_host* host) : gpu_(gpu), host_(host) {
  require(cudaSetDevice(gpu), "choosing the GPU");
  require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a CUDA stream");
  for (cudaEvent_t& event : events_) require(cudaEventCreate(&event), "making a CUDA event");
}

CudaQueue::~CudaQueue() {
  cudaSetDevice(gpu_);
  cudaStreamSynchronize(stream_);
  for (const cudaGraphExec_t graph : graphs_) cudaGraphExecDestroy(graph);
  for (void* const memory : pinned_) cudaFreeHost(memory);
  for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  cudaStreamDestroy(stream_);
}

std::span<std::byte> CudaQueue::pinned(std::int64_t bytes) {
  const auto size = static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1));
  void* memory = nullptr;
  require(cudaHostAlloc(&memory, size, cudaHostAllocDefault), "pinning host memory");
  pinned_.push_back(memory);
  std::memset(memory, 0, size);
  return {static_cast<std::byte*>(memory), size};
}

// The first call of a step: the calling thread may have used another GPU.
Status CudaQueue::upload(void* to, const void* from, std::int64_t bytes) noexcept {
  if (const cudaError_t error = cudaSetDevice(gpu_); error != cudaSuccess) return outcome(error, stream());
  return outcome(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream_), stream());
}

Status CudaQueue::upload_rows(void* to, std::int64_t to_stride, const void* from, std::int64_t from_stride, std::int64_t row_bytes,
                              std::int64_t rows) noexcept {
  return outcome(cudaMemcpy2DAsync(to, static_cast<std::size_t>(to_stride), from, static_cast<std::size_t>(from_stride),
                                   static_cast<std::size_t>(row_bytes), static_cast<std::size_t>(rows), cudaMemcpyHostToDevice, stream_),
                 stream());
}

Status CudaQueue::download(void* to, const void* from, std::int64_t bytes) noexcept {
  return outcome(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream_), stream());
}

Status CudaQueue::mark(int point) noexcept { return outcome(cudaEventRecord(events_[point], stream_), stream()); }
Status CudaQueue::wait(int point) noexcept { return outcome(cudaEventSynchronize(events_[point]), stream()); }

double CudaQueue::seconds_between(int first, int second) noexcept {
  float milliseconds = 0;
  if (cudaEventElapsedTime(&milliseconds, events_[first], events_[second]) == cudaSuccess) return 1e-3 * milliseconds;
  cudaGetLastError();  // a step that failed may have left a point out
  return 0;
}

std::int64_t CudaQueue::sample_workspace_bytes(std::int64_t rows, std::int64_t vocabulary) const noexcept {
  return cuda::sample_workspace_bytes(rows, vocabulary);
}

Status CudaQueue::sample(float* logits, std::int32_t count, std::int64_t vocabulary, const SampleRow* rows, LogitEdit* edits,
                         void* workspace) noexcept {
  return cuda::sample(logits, count, vocabulary, rows, edits, drawn_, workspace, stream());
}

int CudaQueue::record(const std::function<Status()>& work) {
  require(cudaSetDevice(gpu_), "choosing the GPU");
  require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a CUDA graph");
  const Status recorded = work();
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
  if (recorded != Status::ok) {
    if (ended == cudaSuccess) cudaGraphDestroy(graph);
    throw Error(ErrorKind::device, "a step cannot be recorded as a CUDA graph");
  }
  require(ended, "ending a CUDA graph");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  require(made, "making a CUDA graph");
  graphs_.push_back(executable);
  require(cudaGraphUpload(executable, stream_), "uploading a CUDA graph");
  require(cudaStreamSynchronize(stream_), "uploading a CUDA graph");
  return static_cast<int>(graphs_.size()) - 1;
}

Status CudaQueue::replay(int recording) noexcept { return outcome(cudaGraphLaunch(graphs_[recording], stream_), stream()); }

}  // namespace lmkit::kernels::cuda
