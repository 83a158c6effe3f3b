// SPDX-License-Identifier: Apache-2.0
//
// Runs a program as a user would and keeps what it printed and how it ended.
#pragma once

#include <temporary_directory.hpp>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace lmkit::test {

using lmkit_test::TemporaryDirectory;

inline std::string content_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Outcome {
  int code = -1;  // 128 + signal when a signal ended it
  std::string out, err;
};

struct Surroundings {
  std::string input = {};                // on stdin
  std::vector<std::string> environment = {};  // "NAME=value", before the caller's own
  std::string folder = {};               // to run in
  int interrupt_after_ms = 0;            // send SIGINT then; 0: never
};

inline Outcome run_program(const std::string& program, const std::vector<std::string>& words, const Surroundings& around = {}) {
  const TemporaryDirectory folder;
  const std::string in = folder.write("in", around.input), out = folder.write("out", ""), err = folder.write("err", "");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_TRUNC, 0);
  posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_TRUNC, 0);
  if (!around.folder.empty()) posix_spawn_file_actions_addchdir_np(&actions, around.folder.c_str());

  std::vector<char*> argv{const_cast<char*>(program.c_str())}, environment;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  for (const std::string& variable : around.environment) environment.push_back(const_cast<char*>(variable.c_str()));
  for (char** variable = environ; *variable; ++variable) environment.push_back(*variable);
  argv.push_back(nullptr);
  environment.push_back(nullptr);

  pid_t child = 0;
  const int failed = posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed) throw std::runtime_error("cannot start " + program);
  if (around.interrupt_after_ms > 0) {
    usleep(static_cast<useconds_t>(around.interrupt_after_ms) * 1000);
    kill(child, SIGINT);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), content_of(out), content_of(err)};
}

}  // namespace lmkit::test
