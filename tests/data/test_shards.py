# SPDX-License-Identifier: MIT
"""What goes into a prepared dataset comes out of it: from Python, from the trainer's C++, and as ASE reads the file itself."""

import json
import os
import shutil
import threading

import ase
import ase.io
import ase.neighborlist
import h5py
import numpy as np
import pytest
from data_support import far_atom, structures, write

from macekit.data import open_shards
from macekit.data.prepare import Options, prepare
from macekit.training.config import BrokenFile


def prepared(tmp_path, frames, name="data", r_max=4.0, **options):
    file = write(tmp_path / f"{name}.extxyz", frames)
    folder = str(tmp_path / name)
    prepare([(None, [file])], folder, Options(r_max=r_max, **options))
    return folder, ase.io.read(file, ":")


def as_matrix(stress):
    from macekit.training.data import stress_matrix

    return stress_matrix(stress)


def same(a, b):
    return np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b)


@pytest.mark.parametrize("shard_bytes", [1000, 1 << 25])
def test_round_trip_is_exact(tmp_path, shard_bytes):
    folder, original = prepared(tmp_path, structures(), shard_bytes=shard_bytes, inputs=[("moment", "node", "magmoms_dft")])
    dataset = open_shards(folder)
    assert len(dataset) == len(original) and (len(dataset.shards) > 3) == (shard_bytes == 1000)
    for i, (read, atoms) in enumerate(zip(dataset, original)):
        assert read.calc is None and dataset.source(i) == f"data.extxyz frame {i}"
        assert same(read.numbers, atoms.numbers) and same(read.positions, atoms.positions) and same(read.cell.array, atoms.cell.array) and same(read.pbc, atoms.pbc)
        for key in ("REF_energy", "total_charge", "config_weight", "config_energy_weight", "config_forces_weight"):
            assert read.info.get(key) == (None if key not in atoms.info else float(atoms.info[key]))
        for key in ("REF_stress", "REF_virials"):
            assert (key in read.info) == (key in atoms.info)
            assert key not in read.info or same(read.info[key], as_matrix(atoms.info[key]))
        assert ("REF_forces" in read.arrays) == ("REF_forces" in atoms.arrays)
        assert "REF_forces" not in read.arrays or same(read.arrays["REF_forces"], atoms.arrays["REF_forces"])
        assert same(read.arrays["magmoms_dft"], atoms.arrays["magmoms_dft"])
        assert read.info["config_type"] == atoms.info.get("config_type", "Default")


def test_atoms_are_like_those_that_ase_makes(tmp_path):
    """The fast construction leaves nothing out that ase.Atoms has."""
    folder, original = prepared(tmp_path, [a for a in structures(8) if "REF_forces" in a.arrays])
    for read, atoms in zip(open_shards(folder), original):
        plain = ase.Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        assert set(vars(read)) == set(vars(plain))
        for name in ("_celldisp", "_constraints", "_calc", "_pbc"):
            assert np.array_equal(getattr(read, name), getattr(plain, name)) and type(getattr(read, name)) is type(getattr(plain, name))
        assert read.numbers.dtype == plain.numbers.dtype
        copy = read.copy()
        copy.rattle(0.1)
        assert copy.get_masses() is not None and not np.array_equal(copy.positions, read.positions)
        del read[0]
        assert len(read) == len(atoms) - 1


def test_counts_are_those_of_ase(tmp_path):
    folder, original = prepared(tmp_path, [*structures(), far_atom()], r_max=3.3)
    dataset = open_shards(folder)
    lists = [ase.neighborlist.neighbor_list("id", atoms, 3.3) for atoms in original]
    assert dataset.num_atoms.dtype == dataset.num_edges.dtype == np.int32
    assert dataset.num_edges.tolist() == [len(i) for i, _ in lists]
    assert dataset.num_atoms.tolist() == [len(atoms) for atoms in original]
    assert dataset.column("num_isolated").tolist() == [len(atoms) - len(set(i)) for (i, _), atoms in zip(lists, original)]
    assert dataset.column("shortest") == pytest.approx([min(d, default=np.inf) for _, d in lists], abs=1e-12)


def test_hdf5_tools_read_the_shards(tmp_path):
    folder, original = prepared(tmp_path, structures())
    with h5py.File(os.path.join(folder, "shard-000000-000.h5")) as file:
        assert file["num_atoms"].dtype == np.int32 and file["num_edges"].dtype == np.int32
        assert np.array_equal(file["positions"], np.concatenate([a.positions for a in original]))
        assert file["atomic_numbers"].dtype == np.uint8 and file["positions"].chunks is None


@pytest.fixture
def engine():
    pytest.importorskip("torch")
    from macekit.training import engine

    return engine()


def test_the_trainers_reader_gives_the_same_frames(tmp_path, engine):
    frames = structures()
    for k, atoms in enumerate(frames):
        atoms.info["head"] = "one" if k % 3 else "two"
    folder, _ = prepared(tmp_path, frames, shard_bytes=2000, inputs=[("moment", "node", "magmoms_dft")])
    dataset, reader = open_shards(folder), engine.Shards(folder)
    assert len(reader) == len(dataset) and dataset.heads == ["two", "one"]
    for i in range(len(dataset)):
        ours, theirs = dataset.frame(i), reader.frame(i)
        assert reader.num_atoms(i) == dataset.num_atoms[i] and reader.num_edges(i) == dataset.num_edges[i]
        assert dataset.heads[theirs.pop("head")] == ours.pop("head")
        assert theirs.pop("inputs") == {name: values for name, (_, values) in ours.pop("inputs").items()}
        assert set(ours) == set(theirs)
        for key, value in ours.items():
            assert (value is None) == (theirs[key] is None) and (value is None or np.array_equal(value, theirs[key])), key
    with pytest.raises(ValueError, match="no structure 40"):
        reader.frame(40)
    reader.verify()


def test_reading_from_several_threads(tmp_path):
    folder, original = prepared(tmp_path, structures(), shard_bytes=2000)
    dataset, wrong = open_shards(folder), []

    def read():
        for _ in range(20):
            for i, atoms in enumerate(original):
                if not np.array_equal(dataset[i].positions, atoms.positions):
                    wrong.append(i)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def both_complain(folder, engine):
    """The sentences of the Python reader and of the trainer's."""
    sentences = []
    try:
        sentences += list(open_shards(folder).damage())
    except BrokenFile as error:
        sentences.append(str(error))
    with pytest.raises(engine.FileError) as caught:
        shards = engine.Shards(folder)
        shards.verify()
    return sentences + [str(caught.value)]


def test_a_flipped_byte_of_any_array_is_found_and_named(tmp_path, engine):
    folder, _ = prepared(tmp_path, structures(), inputs=[("moment", "node", "magmoms_dft")])
    path = os.path.join(folder, "shard-000000-000.h5")
    arrays = open_shards(folder).shards[0].header["arrays"]
    assert {"positions", "forces", "stress", "virials", "has_energy", "inputs/moment", "inputs/total_charge", "num_edges"} <= set(arrays)
    whole = open(path, "rb").read()
    for name, entry in arrays.items():
        size = int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize
        damaged = bytearray(whole)
        damaged[entry["offset"] + size // 2] ^= 0x10
        open(path, "wb").write(damaged)
        sentences = both_complain(folder, engine)
        assert len(sentences) == 2 and all(f"shard-000000-000.h5: the array {name} is damaged" in s for s in sentences), (name, sentences)


def test_no_damage_of_offsets_or_indices_is_followed(tmp_path, engine):
    """Any byte of the arrays that point elsewhere may be wrong: an error or a wrong value that verify() finds, never a crash."""
    folder, _ = prepared(tmp_path, structures(12))
    path = os.path.join(folder, "shard-000000-000.h5")
    arrays = open_shards(folder).shards[0].header["arrays"]
    whole = open(path, "rb").read()
    for name in ("first_atom", "num_atoms", "head", "config_type", "file"):
        entry = arrays[name]
        for at in range(int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize):
            damaged = bytearray(whole)
            damaged[entry["offset"] + at] ^= 0x85
            open(path, "wb").write(damaged)
            reader = engine.Shards(folder)
            complaints = 0
            for i in range(12):
                try:
                    reader.frame(i)
                except engine.FileError as error:
                    complaints += "is damaged" in str(error)
            assert complaints or name in ("config_type", "file")


@pytest.mark.parametrize("what, words", [
    ("truncated", "the file is truncated"), ("cut in the header", "header of the shard is truncated"), ("missing", "missing"), ("foreign", "no shard of a prepared dataset"),
    ("plain hdf5", "no shard of a prepared dataset"), ("empty", "no shard of a prepared dataset"), ("newer", "version 2"), ("header", "header of the shard is damaged"), ("exchanged", "checksums differ"),
    ("index", "dataset"), ("no index", "not finished"), ("newer index", "version 7"), ("foreign index", "no dataset of macekit"),
])
def test_broken_files_are_named_in_one_sentence(tmp_path, engine, what, words):
    folder, _ = prepared(tmp_path, structures(), shard_bytes=4000)
    path, index = os.path.join(folder, "shard-000001-000.h5"), os.path.join(folder, "dataset.json")
    whole = open(path, "rb").read()
    changes = {
        "truncated": lambda: open(path, "wb").write(whole[:-2000]),
        "cut in the header": lambda: open(path, "wb").write(whole[:700]),
        "missing": lambda: os.remove(path),
        "foreign": lambda: open(path, "wb").write(b"PK\3\4" + whole[4:]),
        "plain hdf5": lambda: h5py.File(path, "w").close(),
        "empty": lambda: open(path, "wb").close(),
        "newer": lambda: open(path, "wb").write(whole.replace(b"macekit shard 1 ", b"macekit shard 2 ", 1)),
        "header": lambda: open(path, "wb").write(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]),
        "exchanged": lambda: shutil.copy(os.path.join(folder, "shard-000000-000.h5"), path),
        "index": lambda: open(index, "w").write("{"),
        "no index": lambda: os.remove(index),
        "newer index": lambda: json.dump(json.load(open(index)) | {"version": 7}, open(index + "x", "w")) or os.replace(index + "x", index),
        "foreign index": lambda: open(index, "w").write("{}"),
    }
    changes[what]()
    for sentence in both_complain(folder, engine):
        assert words in sentence and "\n" not in sentence
        assert ("shard-000001" in sentence) == ("index" not in what)
