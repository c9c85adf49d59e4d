"""The words that header values may consist of where people write what they like: closed lists of terms and makers."""

from __future__ import annotations

from collections.abc import Mapping

MODALITIES = frozenset({
    "AR", "AS", "ASMT", "AU", "BDUS", "BI", "BMD", "CD", "CF", "CP", "CR", "CS", "CT", "CTPROTOCOL", "DD", "DF",
    "DG", "DM", "DMS", "DOC", "DS", "DX", "EC", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FA", "FID", "FS", "GM",
    "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LP", "LS", "M3D", "MA", "MG", "MR", "MS", "NM",
    "OAM", "OCT", "OP", "OPM", "OPR", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR", "PT",
    "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT",
    "RWV", "SC", "SEG", "SM", "SMR", "SR", "SRF", "ST", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "VF", "XA",
    "XAPROTOCOL", "XC", "XRF",
})  # fmt: skip
"""Modality codes, also the retired ones (PS3.3, C.7.3.1.1.1)."""
IMAGE_TYPES = frozenset({
    "ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "SCOUT", "MOSAIC", "VOLUME", "LABEL",
    "OVERVIEW", "THUMBNAIL", "NONE", "OTHER", "MPR", "PROJECTION", "MIP", "REFORMATTED", "ADC", "FA", "TRACEW", "M",
    "P", "R", "I", "ND", "NORM", "DIS2D", "DIS3D", "FM", "FS", "T1", "T2", "DIFFUSION", "PERFUSION", "RESAMPLED",
    "SINGLEPLANE", "BIPLANE", "STATIC", "DYNAMIC", "GATED", "TOMO", "WHOLE", "BODY", "EMISSION", "TRANSMISSION",
    "LEFT", "RIGHT", "CORONAL", "SAGITTAL", "FREQUENCY", "TEE", "STRESS", "POST_PROCESSED", "POST_CONTRAST",
    "SUBTRACTION", "COLOR",
})  # fmt: skip
"""Values of ImageType that are let through; what else a maker writes there may be anything."""
PARTS = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "AORTA", "ARM", "BRAIN", "BREAST", "CALF", "CAROTID", "CERVIX", "CHEST",
    "CHESTABDOMEN", "CHESTABDPELVIS", "CLAVICLE", "COCCYX", "CSPINE", "EAR", "ELBOW", "ESOPHAGUS", "EXTREMITY", "EYE",
    "FACE", "FEMUR", "FINGER", "FOOT", "FOREARM", "GALLBLADDER", "HAND", "HEAD", "HEADNECK", "HEART", "HIP",
    "HUMERUS", "IAC", "JAW", "KIDNEY", "KNEE", "LEG", "LIVER", "LSPINE", "LUNG", "MANDIBLE", "MAXILLA", "MEDIASTINUM",
    "MOUTH", "NECK", "NOSE", "ORBIT", "OVARY", "PANCREAS", "PELVIS", "PROSTATE", "RECTUM", "RETINA", "RIB", "SACRUM",
    "SCALP", "SHOULDER", "SINUS", "SKIN", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "TESTIS",
    "THIGH", "THORAX", "THYMUS", "THYROID", "TLSPINE", "TMJ", "TOE", "TSPINE", "UTERUS", "WHOLEBODY", "WRIST",
    "ZYGOMA", "RIBCAGE",
})  # fmt: skip
"""Body parts (PS3.16, annex L): many sites write free text into this element, so only the terms themselves pass."""
VIEWS = frozenset({
    "AP", "PA", "LL", "RL", "LAT", "LATERAL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "OBLIQUE",
    "AXIAL", "CC", "MLO", "ML", "LM", "LMO", "XCC", "XCCL", "XCCM", "CCID", "MLOID", "FB", "SIO", "ISO", "CV", "AT",
})  # fmt: skip
"""Views of projection X-ray and mammography; ViewPosition is free text on some devices."""
PHOTOMETRIC = frozenset({
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422",
    "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT",
})  # fmt: skip
MAKERS: Mapping[str, tuple[str, ...]] = {
    "GE": ("ge", "g e medical", "general electric"), "Siemens": ("siemens",),
    "Philips": ("philips", "marconi", "picker", "adac"),
    "Canon": ("canon", "toshiba"), "Fujifilm": ("fuji", "fujifilm", "sonosite", "hitachi", "aloka"),
    "Hologic": ("hologic", "lorad"), "Agfa": ("agfa",), "Carestream": ("carestream", "kodak", "trex"),
    "Konica Minolta": ("konica", "minolta"), "Samsung": ("samsung", "medison"), "Mindray": ("mindray",),
    "Shimadzu": ("shimadzu",), "United Imaging": ("united imaging", "uih"), "Esaote": ("esaote", "biosound"),
    "IMS Giotto": ("giotto", "ims"), "Planmed": ("planmed", "planmeca"), "Sectra": ("sectra",),
    "Varian": ("varian",), "Swissray": ("swissray",), "Elekta": ("elekta",), "Bruker": ("bruker",),
    "Hamamatsu": ("hamamatsu",),
    "Leica": ("leica", "aperio"), "3DHISTECH": ("3dhistech",), "Roche": ("roche", "ventana"), "Zeiss": ("zeiss",),
    "Heidelberg": ("heidelberg",), "Topcon": ("topcon",), "Nidek": ("nidek",), "Olympus": ("olympus",),
    "Pentax": ("pentax", "hoya"), "Karl Storz": ("storz",), "Mortara": ("mortara",), "Nihon Kohden": ("nihon",),
    "Butterfly": ("butterfly",), "Supersonic": ("supersonic",), "Neusoft": ("neusoft",), "Imatron": ("imatron",),
}  # fmt: skip
"""Makers of devices, and the words by which their names are known. A text that holds none of them is left out: people
write the name of the site, and worse, into this element."""
MODELS = frozenset({
    "achieva", "acuson", "advantx", "aera", "affiniti", "altaira", "altea", "amira", "ampere", "amulet", "aperio",
    "apex", "aplio", "aquilion", "artis", "artist", "as", "asteion", "atomscope", "avantic", "avanto", "axiom",
    "biograph", "brightspeed", "brilliance", "bucky", "carestream", "centricity", "ceph", "cirrus", "clinical", "cr",
    "ct", "cx", "cxdi", "definition", "definity", "definium", "digital", "digitaldiagnost", "dimensions", "direct",
    "directview", "discovery", "dr", "drive", "drx", "dsa", "dx", "echelon", "edge", "elan", "elite", "elscint",
    "emotion", "epiq", "espree", "essenta", "evolution", "excel", "exp", "express", "fcr", "fdr", "flash", "force",
    "forte", "fusion", "ge", "gemini", "gx", "gyroscan", "harmony", "hd", "hdx", "hdxt", "hispeed", "hitachi", "ict",
    "imager", "infinia", "infinix", "ingenia", "ingenuity", "innova", "insight", "inspiration", "integris", "intera",
    "intevo", "iq", "kodak", "lightspeed", "lite", "logic", "logiq", "lorad", "lumify", "luminos", "lumos", "lunar",
    "lx", "magna", "magnetom", "magnum", "mammodiagnost", "mammomat", "max", "mct", "medical", "mg", "microdose",
    "millennium", "mini", "mobile", "mobilett", "mr", "mri", "mrxperion", "mtf", "multiva", "multix", "mx",
    "nanozoomer", "nova", "novation", "nuance", "oasis", "one", "openspeed", "optima", "orian", "orthopantomograph",
    "panorama", "performance", "performix", "pixel", "planmed", "plaza", "plus", "portable", "precise", "precision",
    "premium", "prime", "prisma", "pristina", "pro", "prospeed", "pulsera", "quantum", "regius", "resona",
    "revelation", "revolution", "rt", "s", "scan", "scanscope", "scenaria", "scope", "selenia", "senographe",
    "sensation", "sequoia", "signa", "silent", "skyra", "sola", "somatom", "sonata", "sonos", "spectra",
    "spectralis", "speed", "spirit", "st", "supria", "symbia", "symphony", "system", "titan", "tomo",
    "tomosynthesis", "toshiba", "trio", "triotim", "turbo", "twin", "ultimate", "ultra", "unit", "univision",
    "vantage", "varian", "vct", "venue", "vereos", "verio", "versa", "vida", "virtual", "visage", "vision", "vista",
    "vivid", "volume", "voluson", "wave", "wireless", "x", "xario", "xograph", "xp", "xpress", "xr", "xt", "xtend",
    "ysio", "zen", "zonare",
})  # fmt: skip
"""Words of which names of devices are made. ManufacturerModelName is a text, and some devices let the site write it."""
INTENTS = frozenset({"FOR PRESENTATION", "FOR PROCESSING"})
