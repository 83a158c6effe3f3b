// SPDX-License-Identifier: Apache-2.0
//
// LineEditor: lines from the user, with editing and history on a terminal, and plainly from anything else.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace lmkit::cli {

class LineEditor {
 public:
  LineEditor();
  ~LineEditor();

  // The next line without its end; none when the input ends or was interrupted.
  std::optional<std::string> read(const std::string& prompt);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;  // null when stdin is not a terminal
};

}  // namespace lmkit::cli
