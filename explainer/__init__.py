"""Why did the model put this box here, or why not? Visual explanations for YOLOv5 detections."""
