"""Trains the text encoder: a small CLIPTextModel that learns to read captions and instructions.

Its token features play the part that a frozen language model's hidden states play at full size, so it has to know what
a text means before any denoiser is trained. Every token is classified by what its word stands for (`mentions`), with
the same heads at all tokens, so that attention can match and fetch a thing's colour, shape and role in one form; and
every field of the whole text's meaning is classified from the pooled text. The classifiers are thrown away.

Shape suffixes: b batch, t tokens, d width, f fields of meaning, l labels of a token.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from compress.config.teacher import TextConfig
from compress.data.scenes.captions import Prompt, sample_t2i
from compress.data.scenes.edits import Instruction, sample_edit
from compress.data.scenes.meaning import FIELDS, labels, vocabulary
from compress.data.scenes.mentions import LABELS, word_labels
from compress.stages.base import StepResult, TrainingStage, fit
from compress.stages.context import Progress, StageContext, StageResult

PAD, BOS, EOS, UNK = "[pad]", "[bos]", "[eos]", "[unk]"
NULL_SHARE = 0.05  # of texts that are empty, as in guidance


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the world; begins with [bos], ends with [eos]."""
    words = [PAD, BOS, UNK, EOS, *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, words.index(BOS)), (EOS, words.index(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK
    )


def build_encoder(config: TextConfig, tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """An untrained encoder of the configured size for this tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            projection_dim=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.tokens,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


class Reader(nn.Module):
    """The encoder with its throw-away classifiers."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.of_token = nn.ModuleList(nn.Linear(width, len(options)) for options in LABELS.values())
        self.of_text = nn.ModuleList(nn.Linear(width, len(options)) for options in FIELDS.values())

    def forward(self, ids_bt: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Class scores of every token's labels, (b, t, classes) each, and of every field, (b, classes) each."""
        output = self.encoder(input_ids=ids_bt)
        by_token = [head(output.last_hidden_state) for head in self.of_token]
        return by_token, [head(output.pooler_output) for head in self.of_text]


def draw_texts(count: int, rng: np.random.Generator) -> list[Prompt | Instruction | None]:
    """Captions and instructions, half and half, and now and then the empty text."""
    texts: list[Prompt | Instruction | None] = []
    for _ in range(count):
        kind = rng.random()
        if kind < NULL_SHARE:
            texts.append(None)
        elif kind < (1 + NULL_SHARE) / 2:
            texts.append(sample_t2i(rng, held_out=rng.random() < 0.1).prompt)
        else:
            texts.append(sample_edit(rng).instruction)
    return texts


def token_labels(text: Prompt | Instruction | None, tokens: int) -> list[list[int]]:
    """The classes of every token, (tokens, labels): a word's after [bos], and nothing's for all other tokens."""
    nothing = [0] * len(LABELS)
    words = [] if text is None else word_labels(text)
    return ([nothing, *words] + [nothing] * tokens)[:tokens]


class TextStage(TrainingStage):
    """Cross-entropy of every token's labels and of every field of the meaning."""

    def __init__(self, config: TextConfig, progress: Progress) -> None:
        super().__init__(config, progress)
        self.tokenizer = build_tokenizer()
        self.tokens = config.tokens
        self.trained = Reader(build_encoder(config, self.tokenizer))
        self.start_averaging()

    def _batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        texts = draw_texts(count, rng)
        words = ["" if text is None else text.tagged for text in texts]
        ids_bt = self.tokenizer(words, padding="max_length", max_length=self.tokens, return_tensors="pt").input_ids
        labels_btl = torch.tensor([token_labels(text, self.tokens) for text in texts])
        labels_bf = torch.tensor([labels(text) for text in texts])
        return ids_bt.to(self.device), labels_btl.to(self.device), labels_bf.to(self.device)

    def step(self, update: int, generator: torch.Generator) -> StepResult:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        ids_bt, labels_btl, labels_bf = self._batch(rng, self.config.batch_size)
        by_token, by_text = self.trained(ids_bt)
        named_bt = labels_btl[..., 0] > 0  # few tokens name something; they weigh as much as all the others
        loss_token = torch.stack(
            [
                F.cross_entropy(head_btk[rows_bt].float(), labels_btl[..., index][rows_bt])
                for index, head_btk in enumerate(by_token)
                for rows_bt in (named_bt, ~named_bt)
            ]
        ).mean()
        loss_text = torch.stack(
            [F.cross_entropy(head_bk.float(), labels_bf[:, index]) for index, head_bk in enumerate(by_text)]
        ).mean()
        return StepResult(loss_token + loss_text, {"loss_token": loss_token.detach(), "loss_text": loss_text.detach()})

    @torch.no_grad()
    def accuracy(self, texts: int = 2000) -> tuple[float, float]:
        """Share of held-out texts read wholly right: every label of every token, every field of the pooled text."""
        ids_bt, labels_btl, labels_bf = self._batch(np.random.default_rng([self.config.seed, 3]), texts)
        by_token, by_text = self.averaged.eval()(ids_bt)
        token_right = [(head.argmax(2) == labels_btl[..., index]).all(1) for index, head in enumerate(by_token)]
        text_right = [head.argmax(1) == labels_bf[:, index] for index, head in enumerate(by_text)]
        return tuple(float(torch.stack(right).all(0).float().mean()) for right in (token_right, text_right))  # type: ignore[return-value]


def run(config: TextConfig, ctx: StageContext) -> StageResult:
    """Trains the text encoder; writes `vae/` (the parent's), `text_encoder/` and `tokenizer/`."""
    from compress.stages.parts import copy_parts

    assert ctx.parent is not None
    torch.manual_seed(config.seed)
    stage = fit(TextStage(config, ctx.progress), ctx, "text encoder")
    encoder = stage.averaged.encoder.eval()
    copy_parts(ctx.parent, ctx.out, ("vae",))
    encoder.save_pretrained(ctx.out / "text_encoder")
    stage.tokenizer.save_pretrained(ctx.out / "tokenizer")
    by_token, by_pooled = stage.accuracy()
    return StageResult(
        metrics={
            "texts_read_by_token": by_token,
            "texts_read_by_pooled": by_pooled,
            "parameters_m": sum(p.numel() for p in encoder.parameters()) / 1e6,
        },
        curves=stage.curves,
        spec=encoder.config.to_diff_dict(),
    )
