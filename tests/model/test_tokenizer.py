"""Tokenizers: digits stand alone, nothing is unencodable, the template's marks end answers."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from gastrovl.core.errors import ConfigError
from gastrovl.model.tokenizer import SHIPPED, load_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def trained():
    return train_tokenizer(["Where is the polyp?", "[125,250,500,749]", "gastric ulcer"] * 3, vocabulary=320)


def test_every_digit_is_a_token_of_its_own(trained):
    assert trained.tokenize("[125,000]") == ["[", "1", "2", "5", ",", "0", "0", "0", "]"]


@pytest.mark.parametrize("text", ["Where is the polyp?", "ulcère de l'estomac", "胃ポリープ 12", "a\tb\n c"])
def test_any_text_comes_back_as_it_was(trained, text):
    assert trained.decode(trained.encode(text), skip_special_tokens=True) == text


def test_words_of_the_corpus_are_short(trained):
    assert len(trained.encode("gastric ulcer")) <= 2


def test_the_same_corpus_gives_the_same_tokenizer(trained):
    again = train_tokenizer(["Where is the polyp?", "[125,250,500,749]", "gastric ulcer"] * 3, vocabulary=320)

    assert again.get_vocab() == trained.get_vocab()


@pytest.mark.parametrize(
    ("template", "end"), [("gastrovl", "<|end|>"), ("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>")]
)
def test_the_mark_that_ends_an_answer_is_the_end_token(tiny_tokenizer, template, end):
    tokenizer = load_tokenizer(str(tiny_tokenizer), template)

    assert tokenizer.eos_token == end
    assert tokenizer.encode(end, add_special_tokens=False) == [tokenizer.eos_token_id]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_shipped_tokenizer_says_a_box_digit_by_digit_and_a_term_in_few_tokens():
    tokenizer = load_tokenizer(SHIPPED, "gastrovl")

    assert len(tokenizer.encode("[045,120,310,400]", add_special_tokens=False)) == 17  # 12 digits, 3 commas, 2 brackets
    assert len(tokenizer.encode("gastric ulcer", add_special_tokens=False)) <= 3


def test_a_foreign_tokenizer_is_given_what_it_lacks(tmp_path):
    words = {"<unk>": 0, "</s>": 1, "polyp": 2}
    bare = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>", unk_token="<unk>").save_pretrained(tmp_path)

    tokenizer = load_tokenizer(str(tmp_path), "vicuna")

    assert len(tokenizer) == 4
    assert tokenizer.convert_tokens_to_ids("<image>") == 3
    assert tokenizer.eos_token == tokenizer.pad_token == "</s>"


def test_a_tokenizer_without_end_token_is_refused_where_the_template_needs_one(tmp_path):
    bare = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>").save_pretrained(tmp_path)

    with pytest.raises(ConfigError, match="has no end token, which chat_template 'vicuna' ends answers with"):
        load_tokenizer(str(tmp_path), "vicuna")
    assert load_tokenizer(str(tmp_path), "chatml").eos_token == "<|im_end|>"
