// SPDX-License-Identifier: Apache-2.0
//
// Device memory and streams for programs that measure or test kernels. A failing CUDA call throws.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace lmkit::kernels::cuda {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// count elements on the device.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t count) : size_(count) { check(cudaMalloc(reinterpret_cast<void**>(&data_), (count ? count : 1) * sizeof(T))); }
  DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { upload(values); }
  DeviceArray(DeviceArray&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  // Done at return, also for streams that do not wait for the default one.
  void fill(int byte) {
    check(cudaMemset(data_, byte, size_ * sizeof(T)));
    check(cudaStreamSynchronize(nullptr));
  }
  void upload(const std::vector<T>& values) {
    check(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    check(cudaStreamSynchronize(nullptr));
  }
  std::vector<T> download() const {
    std::vector<T> values(size_);
    check(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// A stream, and what it ran captured as a graph.
class DeviceStream {
 public:
  DeviceStream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  DeviceStream(const DeviceStream&) = delete;
  ~DeviceStream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }
  void wait() const { check(cudaStreamSynchronize(stream_)); }

  template <class Work>
  cudaGraphExec_t capture(Work&& work) const {
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    work();
    check(cudaStreamEndCapture(stream_, &graph));
    check(cudaGraphInstantiate(&replay, graph, 0));
    check(cudaGraphDestroy(graph));
    return replay;
  }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace lmkit::kernels::cuda
