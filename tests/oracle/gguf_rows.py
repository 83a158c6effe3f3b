#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One row of every tensor of a GGUF file as the Python package gguf reads it, for tests/core/model/gguf_rows_test.cpp.

    gguf_rows.py MODEL.gguf > tests/core/model/data/smollm2_rows.txt

A line is: tensor, row, CRC-32 of the row's values as little-endian floats, and its first and last value.
"""
import sys
import zlib

import numpy
from gguf import GGUFReader
from gguf.quants import dequantize

for index, tensor in enumerate(GGUFReader(sys.argv[1]).tensors):
    packed = numpy.atleast_2d(tensor.data)
    row = index * 7919 % packed.shape[0]
    values = dequantize(packed[row], tensor.tensor_type).astype("<f4").ravel()
    print(tensor.name, row, f"{zlib.crc32(values.tobytes()):08x}", repr(float(values[0])), repr(float(values[-1])))
