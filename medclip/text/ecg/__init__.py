"""Words of electrocardiograms: SCP-ECG statements, reports in German and English, and what is cleaned out of them."""
