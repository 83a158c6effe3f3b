// SPDX-License-Identifier: Apache-2.0
//
// Sampling on the GPU against the CPU's sampler, and against the probabilities in float64.
#include "kv_run.hpp"

#include <lmkit/engine/sampler.hpp>
#include <lmkit/kernels/cuda/sample.hpp>

#include <cmath>
#include <limits>

using namespace lmkit;
using namespace lmkit::kernels::cuda;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// Rows that are sampled on both sides.
struct Rows {
  int vocabulary;
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  std::vector<LogitEdit> edits;
  std::vector<Choice> expected;
  std::vector<Sampled> sampled;

  explicit Rows(int vocabulary) : vocabulary(vocabulary) {}

  std::span<float> row(std::size_t n) { return std::span(logits).subspan(n * vocabulary, vocabulary); }

  // Chooses on the CPU too. A known token is scored there by hand.
  void add(const std::vector<float>& row, const SamplingParams& p, const std::vector<TokenId>& prompt, const std::vector<TokenId>& answer,
           std::int64_t position, TokenId known = -1) {
    SamplerState state(p, prompt);
    for (const TokenId token : answer) state.accept(token);
    SampleRow r{.seed = state.seed(), .position = position, .known = known, .temperature = p.temperature, .top_k = p.top_k, .top_p = p.top_p,
                .min_p = p.min_p, .repetition_penalty = p.repetition_penalty, .presence_penalty = p.presence_penalty,
                .frequency_penalty = p.frequency_penalty, .edits_begin = static_cast<int>(edits.size())};
    for (const auto& [token, bias] : p.logit_bias) edits.push_back({.token = token, .bias = bias});
    for (const auto& [token, count] : state.counts()) {
      const auto own = std::find_if(edits.begin() + r.edits_begin, edits.end(), [&](const LogitEdit& e) { return e.token == token; });
      if (own == edits.end()) edits.push_back({token, count, 1, 0});
      else own->in_answer = count, own->seen = 1;
    }
    r.edits_end = static_cast<int>(edits.size());
    rows.push_back(r);
    logits.insert(logits.end(), row.begin(), row.end());
    auto changed = row;
    if (known < 0) expected.push_back(sampler.choose(changed, p, state, position, 0));
    else expected.push_back({known, row[known] - log_normalizer(row), {}});
  }

  void run(bool graph = false) {
    DeviceArray<float> device_logits(logits);
    const DeviceArray<SampleRow> device_rows(rows);
    DeviceArray<LogitEdit> device_edits(edits);
    DeviceArray<Sampled> out(rows.size());
    DeviceArray<std::byte> workspace(sample_workspace_bytes(rows.size(), vocabulary));
    workspace.fill(0xff);
    const auto work = [&] {
      REQUIRE(sample(device_logits.data(), static_cast<int>(rows.size()), vocabulary, device_rows.data(), device_edits.data(), out.data(),
                     workspace.data(), Run::on(stream)) == Status::ok);
    };
    if (graph) {
      const cudaGraphExec_t replay = stream.capture(work);
      for (int time = 0; time < 2; ++time) {  // the second finds what the first left in the workspace
        device_logits.upload(logits), device_edits.upload(edits), out.fill(0xff);
        check(cudaGraphLaunch(replay, stream));
        stream.wait();
      }
      check(cudaGraphExecDestroy(replay));
    } else {
      out.fill(0xff);
      work();
      stream.wait();
    }
    sampled = out.download();
  }

  // How many rows differ in their token; CHECKs the log probabilities of the others.
  int differing() const {
    int count = 0;
    for (std::size_t n = 0; n < rows.size(); ++n) {
      if (sampled[n].token != expected[n].token) {
        ++count;
        continue;
      }
      const float error = std::abs(sampled[n].logprob - expected[n].logprob);
      if (!(error <= 1e-4f)) {
        INFO("row " << n << " token " << expected[n].token << " logprob " << sampled[n].logprob << " expected " << expected[n].logprob);
        CHECK(error <= 1e-4f);
      }
    }
    return count;
  }

  Sampler sampler;
  DeviceStream stream;
};

std::vector<float> normal_row(int vocabulary, float spread, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(vocabulary);
  for (float& x : row) x = normal(random);
  return row;
}

std::vector<TokenId> some_tokens(int count, int vocabulary, std::mt19937_64& random) {
  std::vector<TokenId> tokens(count);
  for (auto& token : tokens) token = std::uniform_int_distribution(0, vocabulary - 1)(random);
  return tokens;
}

struct Parts {
  const char* name;
  SamplingParams params;
};

std::vector<Parts> combinations() {
  std::vector<Parts> all{{"greedy", {.temperature = 0}}, {"greedy, penalties", {.temperature = 0, .repetition_penalty = 1.3f, .presence_penalty = 0.4f}}};
  for (const float temperature : {0.2f, 0.8f, 1.5f, 40.f})
    for (const int top_k : {0, 1, 50, 700, 6000})
      for (const float top_p : {1.f, 0.9f, 0.2f, 0.9999f})
        for (const float min_p : {0.f, 0.05f}) {
          SamplingParams p{.temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p};
          all.push_back({"no penalties", p});
          p.repetition_penalty = 1.2f, p.presence_penalty = 0.5f, p.frequency_penalty = -0.3f;
          all.push_back({"penalties", p});
        }
  return all;
}

}  // namespace

TEST_CASE("The GPU draws the token the CPU draws") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  int drawn = 0, differing = 0;
  for (const int vocabulary : some_of<int>({49152, 7001, 128256})) {
    for (const float spread : some_of<float>({4, 1})) {
      std::vector<std::vector<float>> some;
      for (int i = 0; i < 3; ++i) some.push_back(normal_row(vocabulary, spread, random));
      for (float& x : some[2]) x = std::round(x * 8) / 8;  // many equal logits
      const auto all = some_of(combinations());
      for (std::size_t begin = 0; begin < all.size(); begin += 82) {
        Rows rows(vocabulary);
        for (std::size_t i = begin; i < std::min(begin + 82, all.size()); ++i) {
          SamplingParams p = all[i].params;
          p.seed = random();
          p.logit_bias = {{17, 3.5f}, {vocabulary - 1, -100.f}, {static_cast<TokenId>(random() % 17), -infinity}};
          rows.add(some[i % 3], p, some_tokens(300, vocabulary, random), some_tokens(40, vocabulary, random), static_cast<std::int64_t>(random() % 100000));
        }
        rows.run();
        differing += rows.differing();
        drawn += static_cast<int>(rows.rows.size());
      }
    }
  }
  WARN(differing << " of " << drawn << " tokens of every combination differ from the CPU's");
  CHECK(differing <= drawn / 300);  // flat rows of 128256 tokens, where each is as likely as rounding
}

TEST_CASE("On rows as models give them rounding decides less than one token in a thousand") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  constexpr int vocabulary = 32000, batch = 128;
  int drawn = 0, differing = 0;
  for (int round = 0; round < few(40); ++round) {
    Rows rows(vocabulary);
    const auto row = normal_row(vocabulary, 3, random);
    for (int n = 0; n < batch; ++n) {
      SamplingParams p{.temperature = 0.7f + 0.1f * (n % 5), .seed = random()};
      if (n % 4 & 1) p.top_k = 40;
      if (n % 4 & 2) p.top_p = 0.95f;
      if (n % 3 == 0) p.min_p = 0.02f;
      rows.add(row, p, {}, {}, n);
    }
    rows.run();
    differing += rows.differing();
    drawn += batch;
  }
  WARN(differing << " of " << drawn << " tokens differ from the CPU's");
  CHECK(differing <= std::max(0, drawn / 1000 - 1));
}

TEST_CASE("The GPU draws tokens as often as they are likely") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  constexpr int vocabulary = 20, count = 40000;
  const auto row = normal_row(vocabulary, 1, random);
  struct Filter {
    SamplingParams params;
    int kept;  // best first
  };
  std::vector<int> order(vocabulary);
  for (int i = 0; i < vocabulary; ++i) order[i] = i;
  std::ranges::sort(order, [&](int a, int b) { return row[a] > row[b]; });
  std::vector<double> weight(vocabulary);
  double all = 0;
  for (const int token : order) all += weight[token] = std::exp(double(row[token]) / 0.9);
  int nucleus = 0;
  for (double sum = 0; sum < 0.8 * all; ++nucleus) sum += weight[order[nucleus]];
  for (const Filter& f : {Filter{{.temperature = 0.9f}, vocabulary}, Filter{{.temperature = 0.9f, .top_k = 7}, 7}, Filter{{.temperature = 0.9f, .top_p = 0.8f}, nucleus}}) {
    Rows rows(vocabulary);
    SamplingParams p = f.params;
    p.seed = random();
    for (int n = 0; n < count; ++n) rows.add(row, p, {}, {}, n);
    rows.run();
    std::vector<int> times(vocabulary);
    for (const Sampled& s : rows.sampled) ++times.at(s.token);
    double kept = 0, chi_square = 0;
    for (int i = 0; i < f.kept; ++i) kept += weight[order[i]];
    for (int i = 0; i < f.kept; ++i) {
      const double expected = count * weight[order[i]] / kept;
      chi_square += (times[order[i]] - expected) * (times[order[i]] - expected) / expected;
    }
    for (int i = f.kept; i < vocabulary; ++i) CHECK(times[order[i]] == 0);
    const int freedom = f.kept - 1;
    CHECK(chi_square < freedom + 5 * std::sqrt(2.0 * freedom) + 10);  // one test in 10^6 fails by chance
  }
}

TEST_CASE("A replayed graph samples what a plain launch does, for other parameters too") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (const int count : {1, 5, 40}) {
    Rows rows(50001);
    for (int n = 0; n < count; ++n) {
      SamplingParams p{.temperature = n % 3 ? 0.5f * (n % 9) : 0.f, .top_k = n % 4 * 20, .top_p = n % 2 ? 0.9f : 1.f, .seed = random()};
      if (n % 5 == 0) p.repetition_penalty = 1.1f;
      rows.add(normal_row(50001, 2, random), p, some_tokens(50, 50001, random), {}, n, n % 7 == 3 ? 123 : -1);
    }
    rows.run();
    const auto eager = rows.sampled;
    rows.run(true);
    for (int n = 0; n < count; ++n) {
      CHECK(rows.sampled[n].token == eager[n].token);
      CHECK(rows.sampled[n].logprob == eager[n].logprob);
    }
    CHECK(rows.differing() <= 1);
  }
}

TEST_CASE("Hostile rows get the token the CPU gives them, or none") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (const int vocabulary : some_of<int>({1, 2, 777, 151936})) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const int some = vocabulary * 2 / 3;
    std::vector<std::vector<float>> kinds(8, normal_row(vocabulary, 2, random));
    kinds[1][some] = nan;
    kinds[2].assign(vocabulary, -infinity);
    kinds[3].assign(vocabulary, -infinity), kinds[3][some] = 3;
    kinds[4].assign(vocabulary, 7.25f);  // all equal
    kinds[5][some] = infinity;
    kinds[6].assign(vocabulary, -infinity), kinds[6][some] = nan;
    for (int i = 0; i < vocabulary; ++i) kinds[7][i] = i % 2 ? -0.f : 0.f;
    Rows rows(vocabulary);
    for (const auto& row : kinds)
      for (const SamplingParams& p : {SamplingParams{.temperature = 0}, {.temperature = 1}, {.temperature = 1e6f, .top_p = 0.7f}, {.temperature = 1e30f, .top_k = vocabulary + 5},
                                      {.temperature = 1e-30f}, {.temperature = 1, .top_k = 1'000'000'000, .top_p = 0.5f}, {.temperature = 0.8f, .top_k = vocabulary / 2, .min_p = 0.999f},
                                      {.temperature = 1, .top_p = 0.99999994f}, {.temperature = 1, .top_p = 1e-30f}}) {
        SamplingParams seeded = p;
        seeded.seed = random();
        rows.add(row, seeded, {}, {}, 5);
      }
    rows.run();
    CHECK(rows.differing() <= 2);
    for (std::size_t n = 0; n < rows.rows.size(); ++n) CHECK((rows.sampled[n].token == -1) == (rows.expected[n].token == -1));
  }
}

TEST_CASE("A known token is scored, a chosen one by the logits as they came") {
  NEEDS_DEVICE();
  const std::uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  constexpr int vocabulary = 32003;
  Rows rows(vocabulary);
  for (int n = 0; n < 20; ++n) {
    SamplingParams p{.temperature = n % 2 ? 1.f : 0.f, .repetition_penalty = 1.5f, .logit_bias = {{n, 1e8f}}, .seed = random()};
    rows.add(normal_row(vocabulary, 5, random), p, some_tokens(3000, vocabulary, random), {}, n, n < 10 ? -1 : 31000 + n);
  }
  rows.run();
  CHECK(rows.differing() == 0);
  for (int n = 0; n < 10; ++n) CHECK(rows.sampled[n].token == n);
}

TEST_CASE("Sampling refuses what it cannot take, and takes no rows") {
  CHECK(sample(nullptr, 1, (1 << 20) + 1, nullptr, nullptr, nullptr, nullptr, {}) == Status::invalid_argument);
  CHECK(sample(nullptr, 0, 32000, nullptr, nullptr, nullptr, nullptr, {}) == Status::ok);
}
