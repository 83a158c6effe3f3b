// SPDX-License-Identifier: Apache-2.0
//
// One function and one file per command. Each returns the exit code, or throws Error, whose kind is the exit code.
#pragma once

#include "arguments.hpp"

namespace lmkit::cli {

int run_command(const Arguments& arguments);
int chat_command(const Arguments& arguments);
int bench_command(const Arguments& arguments);
int plan_command(const Arguments& arguments);
int plugin_command(const Arguments& arguments);
int eval_command(const Arguments& arguments);
int doctor_command(const Arguments& arguments);

}  // namespace lmkit::cli
