"""D2R-Net: the radiograph's visual branches and alignment."""
