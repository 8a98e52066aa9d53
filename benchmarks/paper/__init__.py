"""Tables and figures of Anton et al. (J. Imaging 2022, 8, 320): from records of a study, or as published."""
