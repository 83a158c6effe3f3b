// SPDX-License-Identifier: Apache-2.0
//
// fuzz_seeds DIR: writes small valid inputs, DIR/<name>_fuzz/*, for the targets whose format is binary or long.
#include <gguf_writer.hpp>
#include <safetensors_writer.hpp>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

using namespace lmkit_test;

void write(const std::filesystem::path& file, std::string_view text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

void write(const std::filesystem::path& file, const Bytes& bytes) {
  write(file, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

GgufWriter small_llama() {
  GgufWriter out;
  out.text("general.architecture", "llama").text("general.name", "s");
  out.u32("llama.block_count", 1).u32("llama.embedding_length", 32).u32("llama.feed_forward_length", 32).u32("llama.context_length", 64);
  out.u32("llama.attention.head_count", 2).u32("llama.attention.head_count_kv", 1).f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  out.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm").texts("tokenizer.ggml.tokens", {"a", "b", "ab", "<|im_end|>"});
  out.i32s("tokenizer.ggml.token_type", {1, 1, 1, 3}).texts("tokenizer.ggml.merges", {"a b"}).u32("tokenizer.ggml.eos_token_id", 3);
  out.tensor("token_embd.weight", {32, 4}, ggml_q8_0, Bytes(4 * 34)).tensor("output_norm.weight", {32}, ggml_f32, Bytes(128));
  return out;
}

GgufWriter every_type() {
  GgufWriter out;
  out.number("a", gguf_u8, std::uint8_t{1}).number("b", gguf_i16, std::int16_t{1}).number("c", gguf_u64, std::uint64_t{1});
  out.number("d", gguf_f64, 1.0).boolean("e", true).raw("f", gguf_array, GgufWriter::array_head(gguf_array, 0));
  out.u32("general.alignment", 64).tensor("t", {32, 2, 1, 1}, ggml_q4_0, Bytes(36)).tensor("u", {32}, ggml_q4_1, Bytes(20));
  return out;
}

constexpr const char* config = R"({"model_type":"llama","hidden_size":64,"intermediate_size":96,"num_attention_heads":4,
"num_key_value_heads":2,"num_hidden_layers":2,"vocab_size":300,"rms_norm_eps":1e-5,"tie_word_embeddings":true,"eos_token_id":[1,2],
"rope_theta":1e4,"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,
"original_max_position_embeddings":64}})";

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds DIR\n");
    return 2;
  }
  const std::filesystem::path to = argv[1];
  write(to / "gguf_fuzz/llama", small_llama().bytes());
  write(to / "gguf_fuzz/types", every_type().bytes());
  write(to / "safetensors_fuzz/two", SafetensorsWriter().tensor("a", "F32", {2, 3}, Bytes(24)).tensor("b", "BF16", {4}, Bytes(8)).bytes());
  write(to / "hf_config_fuzz/llama", config);
}
