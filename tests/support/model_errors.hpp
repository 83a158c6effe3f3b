// SPDX-License-Identifier: Apache-2.0
//
// error_of(call): the Error that a call throws.  CHECK_THAT(error_of(call), Says(found, expected)): its parts contain
// these words.
#pragma once

#include "catch.hpp"

#include <lmkit/base/error.hpp>

#include <string>
#include <utility>

namespace lmkit_test {

template <class Call>
lmkit::Error error_of(Call call) {
  try {
    call();
  } catch (const lmkit::Error& error) {
    return error;
  }
  return lmkit::Error(lmkit::ErrorKind::runtime, "(nothing was thrown)");
}

#if __has_include(<catch2/catch_all.hpp>)
using ErrorMatcher = Catch::Matchers::MatcherBase<lmkit::Error>;
#else
using ErrorMatcher = Catch::MatcherBase<lmkit::Error>;
#endif

class Says : public ErrorMatcher {
 public:
  explicit Says(std::string found, std::string expected = {}) : found_(std::move(found)), expected_(std::move(expected)) {}

  bool match(const lmkit::Error& error) const override {
    return error.kind() == lmkit::ErrorKind::model && error.found().find(found_) != std::string::npos &&
           error.expected().find(expected_) != std::string::npos;
  }
  std::string describe() const override { return "says: " + found_ + (expected_.empty() ? "" : "; expected … " + expected_); }

 private:
  std::string found_, expected_;
};

}  // namespace lmkit_test

namespace Catch {
template <>
struct StringMaker<lmkit::Error> {
  static std::string convert(const lmkit::Error& error) { return error.what(); }
};
}  // namespace Catch
