// SPDX-License-Identifier: Apache-2.0
//
// Error: what set-up throws. It says what was found, what was expected and what to try, and carries the exit code.
#pragma once

#include <stdexcept>
#include <string>

namespace lmkit {

// The value is the command's exit code.
enum class ErrorKind { runtime = 1, usage = 2, model = 3, memory = 4, plugin = 5, device = 6, gate = 7 };

class Error : public std::runtime_error {
 public:
  // Each part is a clause without a final full stop; `expected` and `remedy` may be empty.
  Error(ErrorKind kind, std::string found, std::string expected = {}, std::string remedy = {})
      : std::runtime_error(found + (expected.empty() ? "" : "; expected " + expected) + (remedy.empty() ? "" : "; try " + remedy)),
        kind_(kind), found_(std::move(found)), expected_(std::move(expected)), remedy_(std::move(remedy)) {}

  ErrorKind kind() const noexcept { return kind_; }
  const std::string& found() const noexcept { return found_; }
  const std::string& expected() const noexcept { return expected_; }
  const std::string& remedy() const noexcept { return remedy_; }

 private:
  ErrorKind kind_;
  std::string found_, expected_, remedy_;
};

}  // namespace lmkit
