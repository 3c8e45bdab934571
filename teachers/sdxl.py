"""SDXL's U-Net (arXiv 2307.01952) as the teacher of the full-size student: where its weights are found.

A folder in diffusers' layout is taken as it is; anything else is looked up on the Hugging Face Hub, where only the
U-Net is fetched, in half precision if the repository offers that.
"""

from __future__ import annotations

from pathlib import Path

HUB_ID = "stabilityai/stable-diffusion-xl-base-1.0"
UNET = "unet"


def locate(path: str) -> Path:
    """The local folder behind a path or a Hub id ("owner/name"); downloads what is missing.

    Raises FileNotFoundError, with the reason, where there is no such folder and no such repository.
    """
    folder = Path(path).expanduser()
    if folder.exists():
        return folder
    owner, _, name = path.partition("/")
    if not owner or not name or "/" in name or owner in (".", "..", "~"):
        raise FileNotFoundError(f"there is no folder {path}")
    return _download(path)


def _download(hub_id: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    refusals = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)
    try:
        files = HfApi().list_repo_files(hub_id)
    except refusals:
        files = []  # without the network, what an earlier run has fetched will do
    half = any(name.startswith(f"{UNET}/") and ".fp16." in name and name.endswith(".safetensors") for name in files)
    weights = [f"{UNET}/*fp16*"] if half else [f"{UNET}/*.safetensors", f"{UNET}/*.json"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=[f"{UNET}/config.json", *weights]))
    except refusals as error:
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(f"there is no folder {hub_id}, and the Hub does not give it ({reason})") from None
