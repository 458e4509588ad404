import json

from fairlead.data.chat_template import ChatTemplate
from fairlead.data.load import read_conversations
from fairlead.data.show import show, show_rows
from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ROW = {"messages": [{"role": "user", "content": "Is it 你?"}, {"role": "assistant", "content": 'the "dog"'}]}


def tokens_of(line: str) -> str:
    """The text that the quoted tokens of a line spell; vocabulary forms in <> are left out."""
    words, decoder, at = [], json.JSONDecoder(), 0
    while (at := line.find('"', at)) >= 0:
        word, at = decoder.raw_decode(line, at)
        words.append(word)
    return "".join(words)


def test_a_conversation(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(ROW)] * 3))
    text = show(path, TOKENIZER, num_rows=2, max_length=512)
    head, first, second = text.split("\n\n")
    assert "layout messages, 3 rows" in head
    assert "chat template of the tokenizer" in head
    assert first.startswith(f"{path}:1: ")
    assert second.startswith(f"{path}:2: ")
    lines = first.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["template", "user", "template", "assistant", "template"]
    assert [" not trained " in line for line in lines] == [True, True, True, False, True]
    assert tokens_of(lines[3]) == 'the "dog"<|im_end|>'
    assert tokens_of(lines[2]) == "<|im_end|>\n<|im_start|>assistant\n"
    assert "<ä" in lines[1]  # a part of a character
    trained = len(TOKENIZER('the "dog"<|im_end|>', add_special_tokens=False)["input_ids"])
    assert f", {trained} trained" in first.splitlines()[0]


def test_a_folder(tmp_path):
    for name, num_rows in (("a.jsonl", 1), ("b/c.jsonl", 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n".join([json.dumps(ROW)] * num_rows))
    head, first, second = show(tmp_path, TOKENIZER, num_rows=2, max_length=512).split("\n\n")
    assert head.startswith(f"{tmp_path}: layout messages, 3 rows")
    assert first.startswith(f"{tmp_path / 'a.jsonl'}:1: ")
    assert second.startswith(f"{tmp_path / 'b/c.jsonl'}:1: ")


def test_pairs_and_prompts(tmp_path):
    pairs, prompts = tmp_path / "pairs.jsonl", tmp_path / "prompts.jsonl"
    pairs.write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"}))
    prompts.write_text(json.dumps({"prompt": "q"}))
    text = show(pairs, TOKENIZER, num_rows=9, max_length=512)
    assert "response 1 of 2" in text
    assert "response 2 of 2" in text
    trained = [line for line in text.splitlines() if line.startswith("  assistant trained")]
    assert [tokens_of(line) for line in trained] == ["a<|im_end|>", "b<|im_end|>"]
    assert ", 0 trained" in show(prompts, TOKENIZER, num_rows=9, max_length=512)
    assert ": 5 tokens, 0 trained" in show(pairs, TOKENIZER, num_rows=1, max_length=5)


def test_colour_says_what_the_words_say(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW))
    records = read_conversations([path]).records
    (text,) = show_rows(records, ChatTemplate(TOKENIZER), 1, max_length=512, tokenizer=TOKENIZER)
    green = [text.plain[s.start : s.end] for s in text.spans if "green" in str(s.style)]
    assert [tokens_of(part) for part in green] == ['the "dog"<|im_end|>']


def test_a_document(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "the dog"}))
    head, row = show(path, TOKENIZER, num_rows=9, max_length=512).split("\n\n")
    assert "layout text, 1 rows" in head
    assert [line.split()[:2] for line in row.splitlines()[1:]] == [["text", "trained"]]
    assert tokens_of(row.splitlines()[1]) == "the dog"
    assert ": 1 tokens, 1 trained" in show(path, TOKENIZER, num_rows=9, max_length=1)
