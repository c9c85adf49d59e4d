"""Read one ECG record of any format into millivolts, or say why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import FileFacts, os_problem
from medclip.files.recognise.sniff import Format
from medclip.imaging.ecg.formats.cpsc2018 import read_matlab
from medclip.imaging.ecg.formats.dicom import read_dicom_ecg
from medclip.imaging.ecg.formats.edf import read_edf
from medclip.imaging.ecg.formats.wfdb import read_wfdb
from medclip.imaging.ecg.formats.xml_and_scp import read_scp, read_xml
from medclip.imaging.ecg.recording import Recording
from medclip.settings import Settings

READERS: Mapping[Format, Callable[[Path, Settings], Recording]] = {
    Format.WFDB: read_wfdb,
    Format.DICOM: read_dicom_ecg,
    Format.EDF: read_edf,
    Format.XML_ECG: read_xml,
    Format.SCP_ECG: read_scp,
    Format.MATLAB: read_matlab,
}


def read_ecg(paths: Sequence[Path], facts: Sequence[FileFacts], settings: Settings) -> Recording:
    """Read a record.

    Args:
        paths: Files of the record; the first is the record or its header, the others are found by what the header
            names.
        facts: Facts of the files from inspection; the first one's format decides.
        settings: Limits.

    Returns:
        The ECG channels in mV, with NaN where the file has gaps.

    Raises:
        MedclipError: NO_SCALE if gain or unit of a lead is unknown; CORRUPT, TRUNCATED, TOO_LARGE, MISSING_FILE,
            MISSING_CODEC, NO_PIXELS, NOT_AN_IMAGE or NOT_SUPPORTED_YET. The message holds nothing of the file's text.
    """
    reader = READERS.get(facts[0].format)
    if reader is None:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, "the file is no ECG in a format that is read.")
    try:
        return reader(paths[0], settings)
    except OSError as error:
        if error.errno is None:  # not the disk: a library's word for a file that ends too early
            raise MedclipError(Reason.TRUNCATED, "the ECG's file ends too early.", where=paths[0]) from None
        raise os_problem(error).error(paths[0]) from None
    except MedclipError as error:
        raise error.at(error.where or paths[0]) from None
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "the ECG does not fit into memory.", where=paths[0]) from None
    except Exception as error:  # what no reader has foreseen in a broken file; its text may quote the file
        name = type(error).__name__
        raise MedclipError(Reason.CORRUPT, f"the ECG cannot be read ({name}).", where=paths[0]) from None
