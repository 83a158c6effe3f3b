# SPDX-License-Identifier: Apache-2.0
"""llama.cpp through its C interface: one model, one context, logits as numpy arrays."""

import ctypes

import llama_cpp as L
import numpy as np

KV_TYPES = {"f16": L.GGML_TYPE_F16, "q8_0": L.GGML_TYPE_Q8_0, "q4_0": L.GGML_TYPE_Q4_0}


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _quiet(level, text, data):
    pass


L.llama_log_set(_quiet, None)


class Model:
    def __init__(self, path, repack=True):
        """repack: let llama.cpp rearrange weights for the CPU (faster, other rounding of the same products)."""
        params = L.llama_model_default_params()
        params.use_extra_bufts = repack
        self.handle = L.llama_model_load_from_file(path.encode(), params)
        if not self.handle:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocab = L.llama_model_get_vocab(self.handle)
        self.vocabulary = L.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text, special=False, add_bos=False):
        raw = text.encode()
        out = (L.llama_token * (len(raw) + 8))()
        count = L.llama_tokenize(self.vocab, raw, len(raw), out, len(out), add_bos, special)
        return list(out[:count])

    def piece(self, token):
        out = ctypes.create_string_buffer(256)
        length = L.llama_token_to_piece(self.vocab, token, out, 256, 0, True)
        return out.raw[:length]

    def text(self, tokens):
        return b"".join(self.piece(t) for t in tokens).decode("utf-8", "replace")

    def ends(self, token):
        return L.llama_vocab_is_eog(self.vocab, token)

    def adds_bos(self):
        return L.llama_vocab_get_add_bos(self.vocab)

    def bos(self):
        return L.llama_vocab_bos(self.vocab)


class Context:
    """A cache of `context` tokens whose keys and values have type `kv`; flash attention wherever llama.cpp allows it."""

    def __init__(self, model, context, kv="f16", threads=2, batch=512, flash=True):
        params = L.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = batch
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = KV_TYPES[kv]
        params.flash_attn_type = L.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else L.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.no_perf = True
        self.model = model
        self.batch_size = batch
        self.handle = L.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise SystemExit(f"llama.cpp refuses a context of {context} tokens with {kv}")
        self.memory = L.llama_get_memory(self.handle)
        self.batch = L.llama_batch_init(batch, 0, 1)
        self.length = 0

    def close(self):
        L.llama_batch_free(self.batch)
        L.llama_free(self.handle)

    def clear(self):
        L.llama_memory_clear(self.memory, True)
        self.length = 0

    def truncate(self, length):
        L.llama_memory_seq_rm(self.memory, 0, length, -1)
        self.length = length

    def feed_quietly(self, tokens):
        """Appends tokens and computes the last one's logits, without copying them: what a benchmark times."""
        for begin in range(0, len(tokens), self.batch_size):
            part = tokens[begin : begin + self.batch_size]
            self._decode(part, [begin + i == len(tokens) - 1 for i in range(len(part))])

    def _decode(self, part, wanted):
        batch = self.batch
        batch.n_tokens = len(part)
        for i, token in enumerate(part):
            batch.token[i] = token
            batch.pos[i] = self.length + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = wanted[i]
        if L.llama_decode(self.handle, batch) != 0:
            raise SystemExit("llama_decode failed")
        self.length += len(part)

    def feed(self, tokens, logits_from=None):
        """Appends tokens; returns the logits (n, vocabulary) of tokens[logits_from:], by default of the last one."""
        logits_from = len(tokens) - 1 if logits_from is None else logits_from
        rows = []
        for begin in range(0, len(tokens), self.batch_size):
            part = tokens[begin : begin + self.batch_size]
            self._decode(part, [begin + i >= logits_from for i in range(len(part))])
            for i in range(len(part)):
                if begin + i >= logits_from:
                    row = L.llama_get_logits_ith(self.handle, i)
                    rows.append(np.ctypeslib.as_array(row, (self.model.vocabulary,)).copy())
        return np.stack(rows) if rows else np.empty((0, self.model.vocabulary), np.float32)


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def perplexity(model, engine, tokens, context, chunks=None, progress=None):
    """llama.cpp's definition: chunks of `context` tokens that do not overlap, the second half of each is scored.

    engine: a Context, or whatever else has clear() and feed(ids, logits_from)."""
    count = len(tokens) // context
    count = min(count, chunks) if chunks else count
    first = context // 2
    total, scored = 0.0, 0
    for chunk in range(count):
        ids = list(tokens[chunk * context : (chunk + 1) * context])
        if model.adds_bos():
            ids[0] = model.bos()
        engine.clear()
        logits = engine.feed(ids, logits_from=first)[:-1]
        targets = np.array(ids[first + 1 :])
        top = logits.max(-1, keepdims=True)
        spread = np.log(np.exp(logits - top).sum(-1, dtype=np.float64)) + top[:, 0]
        total += float((spread - logits[np.arange(len(targets)), targets]).sum())
        scored += len(targets)
        if progress:
            progress(chunk + 1, count, float(np.exp(total / scored)))
    return {"perplexity": float(np.exp(total / scored)), "chunks": count, "scored": scored}
