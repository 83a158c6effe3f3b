// SPDX-License-Identifier: Apache-2.0
//
// error_of(kind, action): the text of the Error that action throws, checked to be of that kind; "" if it throws none.
// says(text, part): whether part is in text, both shown when a CHECK of it fails.
#pragma once

#include <lmkit/base/error.hpp>

#include <catch.hpp>

#include <string>

template <class Action>
std::string error_of(lmkit::ErrorKind kind, Action&& action) {
  try {
    action();
  } catch (const lmkit::Error& error) {
    CHECK(static_cast<int>(error.kind()) == static_cast<int>(kind));
    return error.what();
  }
  return {};
}

#define CHECK_SAYS(text, part)                              \
  do {                                                      \
    const std::string said = (text);                        \
    INFO("said: " << said << "\nlacks: " << (part));         \
    CHECK((said.find(part) != std::string::npos));          \
  } while (false)
