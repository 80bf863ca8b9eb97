"""The words that travel with every published model version: terms, citations, intended use."""

from typing import Final

LICENCE: Final = "CC-BY-SA-4.0"
INTENDED_USE: Final = (
    "Research use only, not for diagnostic use. Classifies square tiles of H&E-stained lung tissue, at 0.35"
    " to 0.6 micrometres per pixel at 224 pixels, as benign, adenocarcinoma or squamous cell carcinoma."
    " Out of scope: whole slides as one image, cytology, frozen sections, other organs, other tumours."
)
LICENCE_TEXT: Final = """\
The files of this model version are licensed under the Creative Commons
Attribution-ShareAlike 4.0 International licence (CC BY-SA 4.0).

Full text: https://creativecommons.org/licenses/by-sa/4.0/legalcode

You may share and adapt them, also commercially, if you give credit (see
NOTICE), say what you changed, and pass your version on under the same
licence. They come without any warranty.
"""
NOTICE: Final = """\
HistoQueue lung-cnn
Research use only, not for diagnostic use.

The weights were trained on the lung tiles of LC25000:
  Borkowski A. A., Bui M. M., Thomas L. B., Wilson C. P., DeLand L. A.,
  Mastorides S. M.: Lung and Colon Cancer Histopathological Image Dataset
  (LC25000). 2019. arXiv:1912.12142v1

Training and test tiles were kept apart by the source-tile clusters of
LC25000-clean (CC BY 4.0):
  Batchkala G., Li B., Rittscher J.: LC25000-clean. 2024.
  doi:10.1007/978-3-031-73748-0_2

The golden tiles are drawings made by HistoQueue; no image of a patient is
part of this model version.

Weights: CC BY-SA 4.0, see LICENSE.
"""
