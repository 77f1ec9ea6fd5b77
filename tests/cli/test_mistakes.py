"""Mistakes that people make: each gets one sentence with the remedy, and nothing is written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from thresher.cli.main import main

SELECT = "select labels.jsonl --method random --budget 5 --out out"
TRAIN = "train labels.jsonl --eval labels.jsonl --out out"
CLEAN = "curate clean labels.jsonl --out out"
MISTAKES = [  # what was typed, and what the sentence must say
    ("selct labels.jsonl --budget 5", "did you mean 'select'"),
    ("select labels.jsonl --method random", "'--budget'"),
    ("select --budget 5", "rows are required"),
    ("select labels.jsonl --method random --budget 0", "larger than zero"),
    ("select labels.jsonl --method random --budget -5", "budget: must be rows"),
    ("select labels.jsonl --method random --budget 150%", "at most 100%"),
    ("select labels.jsonl --method random --budget 1.5", "at most 100%"),
    ("select labels.jsonl --method random --budget half", "budget: must be rows (500, 10k)"),
    ("select labels.jsonl --method random --budget 10k", "at most the 30 usable rows"),
    ("select labels.jsonl --method random --budget 500tk", "budget: must be rows"),
    ("select labels.jsonl --method k-centre --budget 5", "did you mean 'k-center'"),
    ("select lables.jsonl --method random --budget 5", "did you mean 'labels.jsonl'"),
    ("select thesis.tex --method random --budget 5", "thesis.tex"),
    ("select empty.jsonl --method random --budget 5", "empty"),
    ("select broken.jsonl --method random --budget 5", "broken.jsonl"),
    ("select hollow --method random --budget 5", "hollow"),
    ("select *.parquet --method random --budget 5", "*.parquet"),
    ("select labels.jsonl sft.jsonl --budget 5", "give several files as a quoted glob"),
    ("select vectors.npy --method random --budget 5", "vectors.npy"),
    (f"{SELECT} --bugdet 5", "did you mean --budget"),
    (f"{SELECT} --seed one", "must be a whole number"),
    (f"{SELECT} --seed -1", "must be at least 0"),
    (f"{SELECT} --set buckets", "must be NAME=VALUE"),
    (f"{SELECT} --set buckets=3", "buckets"),
    (f"{SELECT} --existing labels.jsonl", "existing"),
    (f"{SELECT} --target labels.jsonl", "target"),
    (f"{SELECT} --schema alpacca", "did you mean 'alpaca'"),
    (f"{SELECT} --schema alpaca", "instruction"),
    (f"{SELECT} --map text", "must be NAME=COLUMN"),
    (f"{SELECT} --map text=titel,label=label", "titel"),
    (f"{SELECT} --map question=text", "question"),
    (f"{SELECT} --id-column nr", "nr"),
    (f"{SELECT} --id-column label", "3 usable rows"),
    (f"{SELECT} --quota lable=equal", "lable"),
    (f"{SELECT} --quota label:all", "quota"),
    (f"{SELECT} --partitions 4", "add --engine ray"),
    (f"{SELECT} --engine spark", "'local', 'ray'"),
    (f"{SELECT} --embeddings nowhere.npy", "nowhere.npy"),
    ("select labels.jsonl --method k-center --budget 5 --embeddings vectors.npy", "30"),
    ("select labels.jsonl --method top --budget 5", "by"),
    ("select labels.jsonl --method top --by text --budget 5", "text"),
    ("select labels.jsonl --method random --budget 5 --json", "add --out"),
    ("select labels.jsonl --method random --budget 5 --out taken", "taken"),
    ("select labels.jsonl --method random --budget 5 --out sft.jsonl", "must be a folder, found a file"),
    ("select labels.jsonl --method random --budget 5 --out labels.jsonl", "must not replace its own input"),
    (f"{SELECT} --config nowhere.toml", "nowhere.toml"),
    (f"{SELECT} --config labels.jsonl", "must be a file that ends in .toml"),
    (f"{SELECT} --config typo.toml", "did you mean 'order'"),
    (f"{SELECT} budgt=7", "did you mean 'budget'"),
    ("train labels.jsonl --eval labels.jsonl", "give --out"),
    ("train labels.jsonl --eval tset.jsonl --out out", "tset.jsonl"),
    ("train labels.jsonl --eval 150% --out out", "150%"),
    ("train lables.jsonl --eval labels.jsonl --out out", "did you mean 'labels.jsonl'"),
    (f"{TRAIN} --lr fast", "must be a number"),
    (f"{TRAIN} --lr 0", "learning_rate must be a number above 0"),
    (f"{TRAIN} --epochs 3 --max-steps 10", "exclude each other"),
    (f"{TRAIN} --lora-dropout 2", "lora_dropout must be a number"),
    (f"{TRAIN} --schedule cosin", "'cosine'"),
    (f"{TRAIN} --seeds 0", "seeds"),
    (f"{TRAIN} --precision fp16", "'fp32'"),
    ("score labels.jsonl", "'--features'"),
    ("score labels.jsonl --features lenght", "did you mean 'length'"),
    ("score labels.jsonl --features number:text", "text"),
    ("score labels.jsonl --features number:price", "price"),
    ("curate clean labels.jsonl", "give --out"),
    (f"{CLEAN} --rules exact-duplicate", "did you mean 'exact-duplicates'"),
    (f"{CLEAN} --set threshold=0.8", "must be RULE.NAME=VALUE"),
    (f"{CLEAN} --rules near-duplicates --set near-duplicates.threshold=80", "threshold"),
    (f"{CLEAN} --rules near-duplicates --set near-duplicates.treshold=0.8", "did you mean 'threshold'"),
    (f"{CLEAN} --rules contamination", "eval"),
    (f"{CLEAN} --eval-split test", "name the rows with --eval"),
    ("curate run job.toml", "job.toml"),
    ("curate run typo.toml", "typo.toml"),
    ("curate history --job nowhere", "nowhere"),
    ("curate rules pi", "did you mean 'pii'"),
    ("curve labels.jsonl --out out", "needs --eval"),
    ("curve labels.jsonl --eval labels.jsonl --max-steps 5", "given as --train max_steps=VALUE"),
    ("compare labels.jsonl --eval labels.jsonl --lr 1e-4", "given as --train learning_rate=VALUE"),
    ("select pairs.jsonl --budget 5", "--map prompt=prompt,response=chosen"),
    ("select talks.jsonl --budget 5", "--map messages=chosen"),
    ("select sheet.xlsx --budget 5", "save the sheet as CSV"),
    ("compare labels.jsonl --eval labels.jsonl --methods k-centre --out out", "did you mean 'k-center'"),
    ("methods facility-locatio", "did you mean 'facility-location'"),
    ("report nowhere", "found nothing"),
    ("report labels.jsonl", "found a file"),
    ("report taken", "manifest.json"),
    ("cache prune", "exactly one of"),
    ("cache prune --max-gb -1", "at least 0"),
    ("label ask labels.jsonl --out out", "rows without a label are required"),
    ("label ask open.jsonl --batch 0 --out out", "must be at least 1"),
    ("label ask open.jsonl --check often --out out", "a share of the batch such as 10%"),
    ("label ask open.jsonl --model tiny --out out", "--annotator"),
    ("label ask open.jsonl --by doubt", "give --out, or --dry-run"),
    ("label ask sft.jsonl --out out", "--map text=COLUMN"),
    ("label add labels.jsonl answers.jsonl --out out", "must be a folder that thresher wrote"),
    ("label budget --curve label=nowhere --price label=1 --money 50", "found nothing at nowhere"),
    ("label budget --curve label --price label=1 --money 50", "must be NAME=FOLDER"),
    ("label budget --curve label=open.jsonl --price teacher=1 --money 50", "no such curve"),
    ("label join open.jsonl --rules anna,anna --out out", "name it once"),
    ("label join open.jsonl --rules anna --how best --out out", "'model', 'majority'"),
    ("grow sft.jsonl --how copy --out out", "'accept', 'own'"),
    ("grow labels.jsonl --model tiny --out out", "a prompt and a response"),
    ("grow sft.jsonl --check ecxact --out out", "did you mean 'exact'"),
    ("grow sft.jsonl --model tiny --calls 1 --out out", "takes 8 answers"),
    ("grow sft.jsonl --model tiny", "give --out, or --dry-run"),
    ("base rank labels.jsonl --models minilm --out out", "at least 2 different models"),
    ("base rank labels.jsonl --models minilm,static --confirm 5 --out out", "from 2 to the 2 models"),
    ("base rank labels.jsonl --models minilm,vectors.npy --out out", "shape (30, d)"),
    ("base sources labels.jsonl --out out", "give --candidate FILE"),
    ("base sources labels.jsonl --candidate sft.jsonl --out out", "must hold rows of the kind of your own"),
    ("base sources labels.jsonl --candidate open.jsonl --engine ray --out out", "add --no-before"),
    ("base transfer labels.jsonl --eval 20% --models minilm,static --methods random --out out", "leave it out"),
    ("mix labels.jsonl --eval 20% --out out", "give several --source, or another column with --by"),
    ("mix labels.jsonl --eval 20% --by lable --out out", "did you mean 'label'"),
    ("mix labels.jsonl --eval 20% --by label --rows 500 --out out", "leave --rows out"),
    ("why taken question --data labels.jsonl", "found no manifest.json"),
    ("why taken question --data labels.jsonl --proofs 2", "must be 0 or at least 3"),
    ("why taken question", "'--data'"),
    ("train labels.jsonl --eval 20% --experts 2 --adapter prompt --out out", "lora, loraplus, lorafa, half"),
    ("train labels.jsonl --eval 20% --experts 0 --out out", "must be at least 1"),
    ("try taken text", "found no manifest.json"),
    ("train labels.jsonl --adapter lorra --out out", "'lora', 'loraplus'"),
    ("train labels.jsonl --adapter full --merge --out out", "leave merge out"),
    ("train labels.jsonl --from taken --out out", "the folder of an adapter"),
    ("train labels.jsonl --device gpu --out out", "cpu, cuda, cuda:1 or mps"),
    ("train labels.jsonl --weight price --out out", "column 'price' not found"),
    ("tune labels.jsonl --eval 20% --adapters lora,lorra --out out", "did you mean 'lora'"),
    ("compare labels.jsonl --against sft.jsonl --eval 20% --out out", "grown ones' kind"),
    ("compare labels.jsonl --against labels.jsonl --eval 20% --methods length --out out", "must be left out"),
    ("advise labels.jsonl --eval 20%", "out must be a folder"),
    ("advise labels.jsonl --eval 20% --out taken", "must be empty or hold advice"),
    ("correct sft.jsonl --model tiny --out out", "name the judge"),
    ("curve labels.jsonl --eval 20% --device cpu --train device=cuda --out out", "give one of them"),
    ("export taken --to torchtune --out out", "'trl', 'llama-factory'"),
    (f"{SELECT} extra", "leave it out, or quote a value"),
    (f"{SELECT} =3", "NAME=VALUE, with the name of an option"),
    (f"{SELECT} --order price", "'file', 'rank'"),
    (f"{SELECT} --split test", "only for a Hub dataset, a folder"),
    (f"{SELECT} --device cuda:9", "needs a CUDA GPU of that number"),
    (f"{SELECT} --push-to-hub nonsense", "must be owner/name"),
    (f"{SELECT} --config bad.yaml", "at line 2, column 1"),
    ("select labels.jsonl --method random --budget 5 --push-to-hub me/x", "add --out DIR"),
    ("select labels.jsonl --method target-similarity --budget 5", "give --target FILE"),
    ("select nohead.csv --method random --budget 5", "the first line must name the columns"),
    ("select ftp://host/rows.jsonl --budget 5", "copy the files to a folder"),
    ("help select", "thresher COMMAND --help"),
    ("--verison", "did you mean --version"),
    ("train labels.jsonl --eval sft.jsonl --out out", "must be of the same kind"),
    ("train labels.jsonl --eval labels.jsonl --out out", "give other rows to --eval"),
    (f"{TRAIN} --report-to wanb", "did you mean 'wandb'"),
    (f"{TRAIN} --metric acuracy", "must be lm-eval:TASK"),
    ("train labels.jsonl --eval 20% --model hollow --out out", "choose a transformers model"),
    ("curve labels.jsonl --eval 20% --within 500% --out out", "a share below 100%"),
    ("curve labels.jsonl --eval 20% --max-time soon --out out", "such as 90s, 30m or 4h"),
    ("curve labels.jsonl --eval 20% --sizes 10,5000 --out out", "at most the 24 rows"),
    ("cache prune --older-than 3", "did you mean --older-than-days"),
    ("score labels.jsonl --features length --out scores.txt", "must end in one of .parquet"),
    ("label refine labels.jsonl --eval sft.jsonl --out out", "rows of a text and its label"),
    ("soup taken --dev labels.jsonl --eval labels.jsonl", "check the path"),
    ("select labels.jsonl --method random --budget 5 --address auto --dry-run", "add --engine ray"),
    ("curate clean labels.jsonl --rules pii --report near-duplicates --dry-run", "report"),
    ("score labels.jsonl --features column:label --reference tiny", "only reference_loss reads it"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with files as people have them, right ones and wrong ones."""
    folder = tmp_path_factory.mktemp("mistakes")
    labels = [{"text": f"row {i}", "label": f"class {i % 3}"} for i in range(30)]
    sft = [{"instruction": f"Say {i}", "output": str(i)} for i in range(30)]
    for name, rows in (("labels", labels), ("sft", sft)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"prompt": f"Say {i}", "chosen": f"It is {i}.", "rejected": "Never."} for i in range(9)]
    said = [
        [{"role": "user", "content": "Say"}, {"role": "assistant", "content": answer}]
        for answer in ("It is so.", "Never.")
    ]
    talks = [{"chosen": said[0], "rejected": said[1]}] * 9
    for name, rows in (("pairs", pairs), ("talks", talks)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sheet.xlsx").write_bytes(b"PK\x03\x04")
    half = [{**row, "label": row["label"] if i < 9 else None, "anna": "a"} for i, row in enumerate(labels)]
    (folder / "open.jsonl").write_text("".join(json.dumps(row) + "\n" for row in half))
    (folder / "empty.jsonl").touch()
    (folder / "broken.jsonl").write_text('{"text": "a", "label"\n' * 3)
    (folder / "thesis.tex").write_text("\\begin{document}")
    (folder / "typo.toml").write_text('ordr = "rank"\n')
    np.save(folder / "vectors.npy", np.ones((7, 4), dtype=np.float32))
    (folder / "bad.yaml").write_text("budget: [5\n")
    (folder / "nohead.csv").write_text(
        "".join(f"a row with more words than a name {i},class {i % 3}\n" for i in range(9))
    )
    (folder / "hollow").mkdir()
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").write_text("mine")
    return folder


def test_there_are_155_mistakes_and_no_two_are_the_same():
    assert len({typed for typed, _ in MISTAKES}) == len(MISTAKES) > 155


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_gets_one_sentence(typed, said, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = _list_files(place)
    code = main(typed.split())
    told = capsys.readouterr()
    assert code == 2, told.err
    assert said in told.err
    assert "Traceback" not in told.err
    assert "internal error" not in told.err
    lines = told.err.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("thresher: ")]
    assert all(": note: " in line or " rows read " in line for line in lines[:start])
    assert all(line.startswith("  ") for line in lines[start + 1 :])  # several problems of one file
    assert told.out == ""
    assert _list_files(place) == before


def _list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
