"""Folders whose hashes are right and whose content is whatever an attacker likes."""

import hashlib
import io
import json
import shutil
import tarfile


def members_of(folder):
    with tarfile.open(folder / "000000.tar") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def canonical(plain):
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def seal(folder, members=None, change_index=lambda index: None, change_manifest=lambda manifest: None):
    """Write members, and describe them in index and manifest as an honest owner would, but for the changes."""
    index = json.loads((folder / "index.json").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_bytes())
    path = folder / "000000.tar"
    if members is not None:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        with tarfile.open(path) as archive:
            described = [{"name": m.name, "offset": m.offset_data, "size": m.size} for m in archive]
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        known = {"sha256": sha256, "size": path.stat().st_size}
        count = len({name.partition(".")[0] for name in members})
        index["shards"][0] |= known | {"members": described, "samples": count}
        index["samples"] = count
        manifest["contents"]["shards"][0] |= known | {"members": list(members)}
    change_index(index)
    (folder / "index.json").write_text(json.dumps(index))
    manifest["contents"]["index"] = hashlib.sha256((folder / "index.json").read_bytes()).hexdigest()
    change_manifest(manifest)
    (folder / "manifest.json").write_bytes(canonical(manifest))


def forged(honest, folder, **changes):
    """Return a copy of a folder, sealed with changes."""
    shutil.copytree(honest, folder)
    seal(folder, **changes)
    return folder
