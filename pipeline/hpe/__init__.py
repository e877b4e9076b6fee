"""Human pose estimation: boxes, models, their feature maps, and cues pooled from them around the joints."""
